import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import diffusers_ext
from diffusers_ext.models.modeling_dcgan import DCGANDiscriminator, DCGANGenerator
from diffusers_ext.models.modeling_mlp_gan import MLPGenerator
from diffusers_ext.pipelines.interpolation import lerp, slerp
from diffusers_ext.pipelines.pipeline_gan import GANPipeline, GANWalkOutput
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)


NAMES = {0: "zero", 1: "one", 2: "two", 3: "three"}
HAS_VIDEO = all(importlib.util.find_spec(name) for name in ("imageio", "imageio_ffmpeg"))


def make_generator(num_classes: int | None = 4, **changes) -> DCGANGenerator:
    torch.manual_seed(0)
    config = {"sample_size": (8, 16), "out_channels": 3, "latent_dim": 6, "channels": 8}
    conditioning = {"num_classes": num_classes, "conditioning": num_classes and "concat"}
    generator = DCGANGenerator(**{**config, **conditioning, **changes})
    with torch.no_grad():  # fresh weights of 0.02 make nothing but gray
        generator.conv_out.weight.mul_(10)
    return generator.eval()


def make_pipeline(num_classes: int | None = None, **changes) -> GANPipeline:
    return GANPipeline(make_generator(num_classes, **changes))


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


class GANConfig(PipelineTesterConfig):
    pipeline_class = GANPipeline
    output_shape = (3, 3, 8, 16)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {
            "generator": make_generator(),
            "discriminator": DCGANDiscriminator((8, 16), channels=4, num_classes=4, conditioning="projection"),
            "id2label": NAMES,
        }

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class InfoGANConfig(GANConfig):
    batch_params = ()
    num_images_param = None

    def get_components(self):
        return {"generator": make_generator(None, num_categories=3, num_continuous_codes=1)}

    def get_inputs(self):
        return {"batch_size": 3}


class LatentTests:
    """What the shared tests say of latents as large as images."""

    def test_latents_are_the_first_noise(self):
        pipe = self.get_pipeline()
        latents = torch.randn(3, 6, generator=seed(0))
        kept = latents.clone()
        assert_equal(self.run(pipe, latents=latents), self.run(pipe, latents=latents, seed=1))
        assert torch.equal(latents, kept)
        assert not torch.equal(self.run(pipe, latents=latents), self.run(pipe, latents=-latents))


class TestOutput(GANConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(GANConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(GANConfig, LatentTests, PipelineRandomnessTesterMixin):
    pass


class TestBatch(GANConfig, PipelineBatchTesterMixin):
    pass


class TestDtype(GANConfig, PipelineDtypeTesterMixin):
    test_latents_stay_in_float32 = None  # there are no steps to look in between


class TestInfoGANOutput(InfoGANConfig, PipelineOutputTesterMixin):
    pass


class TestInfoGANRandomness(InfoGANConfig, LatentTests, PipelineRandomnessTesterMixin):
    pass


@torch.no_grad()
def test_images_are_those_of_the_generator():
    pipe = make_pipeline(4)
    latents, labels = torch.randn(2, 6), torch.tensor([2, 0])
    images = pipe(class_labels=labels, latents=latents, output_type="pt").images
    assert_equal(images, pipe.generator(latents, labels).sample / 2 + 0.5)


@torch.no_grad()
def test_one_seed_draws_the_normal_latents_that_torch_draws():
    pipe = make_pipeline()
    images = pipe(batch_size=3, generator=seed(5), output_type="pt").images
    assert_equal(images, pipe(latents=torch.randn(3, 6, generator=seed(5)), output_type="pt").images)


@pytest.mark.parametrize("codes", [{}, {"num_categories": 2, "num_continuous_codes": 1}])
@pytest.mark.parametrize("truncation", [None, 0.5])
def test_an_image_depends_on_its_own_generator_alone(codes, truncation):
    pipe = make_pipeline(**codes)
    together = pipe(batch_size=4, generator=generators([7, 1, 9, 4]), truncation=truncation, output_type="pt").images
    for i, number in enumerate([7, 1, 9, 4]):
        alone = pipe(generator=seed(number), truncation=truncation, output_type="pt").images
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)
    assert len({float(image.sum()) for image in together}) == 4


def test_labels_of_every_kind():
    pipe = GANConfig().get_pipeline()

    def draw(labels):
        return pipe(class_labels=labels, generator=seed(0), output_type="pt").images

    expected = draw([3, 1])
    for labels in (["three", "one"], torch.tensor([3, 1]), np.array([3, 1]), (3, "one")):
        assert_equal(draw(labels), expected)
    assert_equal(draw(2), draw(["two"]))
    assert_equal(draw(np.int64(2)), draw("two"))


class TestLatents:
    def noise(self, distribution="normal", truncation=None, number=4000) -> torch.Tensor:
        pipe = make_pipeline(latent_distribution=distribution)
        return pipe.prepare_latents(number, torch.device("cpu"), seed(0), truncation=truncation)

    @pytest.mark.parametrize("truncation", [0.1, 0.7, 2.0])
    def test_truncated_normal_noise_has_its_distribution(self, truncation):
        noise, free = self.noise(truncation=truncation), self.noise()
        assert noise.abs().max() <= truncation
        inside = free.abs() <= truncation
        assert torch.equal(noise[inside], free[inside])
        # the variance of a normal distribution that is cut off on both sides
        density = math.exp(-(truncation**2) / 2) / math.sqrt(2 * math.pi)
        variance = 1 - 2 * truncation * density / math.erf(truncation / math.sqrt(2))
        assert abs(noise.var() / variance - 1) < 0.03
        assert abs(noise[~inside].var() / variance - 1) < 0.1  # and so has the part that was resampled

    def test_resampling_in_a_loop_gives_the_same_distribution(self):
        noise, free = self.noise(truncation=0.8), self.noise()
        while (beyond := free.abs() > 0.8).any():
            free[beyond] = torch.randn(int(beyond.sum()))
        quantiles = torch.linspace(0.02, 0.98, 25)
        difference = noise.flatten().quantile(quantiles) - free.flatten().quantile(quantiles)
        assert difference.abs().max() < 0.03

    def test_truncated_uniform_noise_stays_uniform(self):
        free, noise = self.noise("uniform"), self.noise("uniform", truncation=0.25)
        assert free.abs().max() <= 1 and abs(free.var() - 1 / 3) < 0.01
        assert noise.abs().max() <= 0.25 and abs(noise.var() - 0.25**2 / 3) < 0.001
        assert_equal(self.noise("uniform", truncation=3.0), free)

    def test_code_is_the_end_of_the_latents(self):
        pipe = make_pipeline(num_categories=3, num_continuous_codes=2)
        latents = pipe.prepare_latents(3000, torch.device("cpu"), seed(0))
        noise, category, codes = latents.split([1, 3, 2], dim=1)
        assert abs(noise.var() - 1) < 0.1
        assert (category.sum(dim=1) == 1).all() and ((category == 0) | (category == 1)).all()
        assert (category.mean(dim=0) - 1 / 3).abs().max() < 0.03
        assert codes.abs().max() <= 1 and abs(codes.var() - 1 / 3) < 0.02

    @pytest.mark.parametrize("categories", [2, [2, 0], torch.tensor([2, 0]), np.array([1, 1])])
    def test_a_given_code_leaves_the_noise_as_it_is(self, categories):
        pipe = make_pipeline(num_categories=3, num_continuous_codes=2)
        free = pipe.prepare_latents(2, torch.device("cpu"), seed(0))
        codes = [[0.5, -0.5], [1.0, 2.0]]
        given = pipe.prepare_latents(
            2, torch.device("cpu"), seed(0), categories=categories, continuous_codes=codes, truncation=None
        )
        assert_equal(given[:, :1], free[:, :1])
        wanted = torch.as_tensor(categories).expand(2)
        assert_equal(given[:, 1:4].argmax(dim=1), wanted)
        assert_equal(given[:, 4:], torch.tensor(codes))
        # also where the latents are given
        again = pipe.prepare_latents(2, torch.device("cpu"), None, free, categories=categories, continuous_codes=codes)
        assert_equal(again, given)


class TestWalks:
    def test_arcs(self):
        start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
        half = slerp(start, end, torch.tensor([0.5]))
        torch.testing.assert_close(half, torch.tensor([2.0, 2.0]) / math.sqrt(2))
        torch.testing.assert_close(slerp(start, end, torch.tensor([0.0])), start)
        torch.testing.assert_close(slerp(start, end, torch.tensor([1.0])), end)
        # even steps in the angle
        third = slerp(start, end, torch.tensor([1 / 3]))
        assert abs(math.degrees(math.atan2(third[1], third[0])) - 30) < 1e-3

    @pytest.mark.parametrize("end", [[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
    def test_where_no_arc_is_given_it_is_a_line(self, end):
        start, end, fraction = torch.tensor([1.0, 2.0]), torch.tensor(end), torch.tensor([0.3])
        torch.testing.assert_close(slerp(start, end, fraction), lerp(start, end, fraction))

    def test_normal_latents_keep_their_length(self):
        start, end = torch.randn(2, 500, generator=seed(0))
        half = slerp(start, end, torch.tensor([0.5]))
        assert abs(half.norm() / start.norm() - 1) < 0.1
        assert lerp(start, end, torch.tensor([0.5])).norm() < 0.8 * start.norm()

    @pytest.mark.parametrize("distribution", ["normal", "uniform"])
    def test_interpolation_goes_from_one_to_the_other(self, distribution):
        pipe = make_pipeline(latent_distribution=distribution)
        points = 2 * torch.rand(2, 2, 6, generator=seed(0)) - 1
        images = pipe.interpolate(latents=points, num_frames=5, output_type="pt").images
        assert images.shape == (2, 5, 3, 8, 16)
        between = slerp if distribution == "normal" else lerp
        for row in range(2):
            way = [between(*points[row], torch.tensor([fraction])) for fraction in (0, 0.25, 0.5, 0.75, 1)]
            expected = pipe(latents=torch.stack(way), output_type="pt").images
            torch.testing.assert_close(images[row], expected, rtol=0, atol=1e-5)

    def test_codes_change_evenly(self):
        pipe = make_pipeline(num_continuous_codes=2)
        points = torch.randn(1, 2, 6, generator=seed(0))
        images = pipe.interpolate(latents=points, num_frames=3, output_type="pt").images
        middle = slerp(points[0, 0, :4], points[0, 1, :4], torch.tensor([0.5]))
        latents = torch.cat([middle, points[0, :, 4:].mean(dim=0)])[None]
        torch.testing.assert_close(images[0, 1:2], pipe(latents=latents, output_type="pt").images, rtol=0, atol=1e-5)

    def test_a_closed_walk_passes_its_points_and_returns(self):
        pipe = make_pipeline()
        points = torch.randn(1, 3, 6, generator=seed(0))
        images = pipe.walk(latents=points, num_frames=12, output_type="pt").images
        expected = pipe(latents=points[0], output_type="pt").images
        torch.testing.assert_close(images[0, ::4], expected, rtol=0, atol=1e-5)
        towards_the_first = slerp(points[0, 2], points[0, 0], torch.tensor([0.75]))[None]
        last = pipe(latents=towards_the_first, output_type="pt").images
        torch.testing.assert_close(images[0, -1:], last, rtol=0, atol=1e-5)

    def test_an_open_walk_ends_at_its_last_point(self):
        pipe = make_pipeline()
        points = torch.randn(1, 3, 6, generator=seed(0))
        images = pipe.walk(latents=points, num_frames=9, closed=False, output_type="pt").images
        expected = pipe(latents=points[0], output_type="pt").images
        torch.testing.assert_close(images[0, ::4], expected, rtol=0, atol=1e-5)

    def test_each_walk_has_its_class_and_its_generator(self):
        pipe = GANConfig().get_pipeline()
        together = pipe.walk([3, "one"], num_frames=70, generator=generators([5, 6]), output_type="pt").images
        for i, (label, number) in enumerate([("three", 5), (1, 6)]):
            alone = pipe.walk(label, num_frames=70, generator=seed(number), output_type="pt").images
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
        assert not torch.allclose(together[0], together[1])

    def test_output_types(self):
        pipe = make_pipeline()
        inputs = {"num_frames": 3, "batch_size": 2}
        tensor = pipe.walk(**inputs, generator=seed(0), output_type="pt").images
        array = pipe.walk(**inputs, generator=seed(0), output_type="np").images
        pictures = pipe.walk(**inputs, generator=seed(0)).images
        np.testing.assert_array_equal(array, tensor.permute(0, 1, 3, 4, 2).numpy())
        for row in range(2):
            for frame in range(3):
                np.testing.assert_array_equal(np.array(pictures[row][frame]), (array[row, frame] * 255).round())
        assert isinstance(pipe.walk(**inputs, return_dict=False), tuple)


class TestFilms:
    @pytest.fixture(params=["pil", "np", "pt"])
    def walks(self, request) -> GANWalkOutput:
        return make_pipeline().walk(batch_size=3, num_frames=5, generator=seed(0), output_type=request.param)

    def test_grid_has_a_row_for_each_walk(self, walks):
        grid = walks.grid()
        assert grid.size == (5 * 16, 3 * 8)
        expected = make_pipeline().walk(batch_size=3, num_frames=5, generator=seed(0)).images
        assert np.array_equal(np.array(grid.crop((32, 8, 48, 16))), np.array(expected[1][2]))

    def test_gif_has_all_the_frames(self, walks, tmp_path):
        walks.save(tmp_path / "walk.gif", fps=20)
        assert [path.name for path in tmp_path.iterdir()] == ["walk.gif"]
        with Image.open(tmp_path / "walk.gif") as film:
            assert film.size == (2 * 16, 2 * 8)  # three walks, two of them in a row
            assert film.n_frames == 5 and film.info["duration"] == 50 and film.info["loop"] == 0
            film.seek(3)
            frame = np.array(film.convert("RGB"))[:8, :16]
        expected = np.array(make_pipeline().walk(batch_size=3, num_frames=5, generator=seed(0)).images[0][3])
        assert np.abs(frame.astype(int) - expected).mean() < 5  # a GIF has 256 colours

    def test_gray_images_are_written_exactly(self, tmp_path):
        torch.manual_seed(0)
        pipe = GANPipeline(MLPGenerator(5, latent_dim=3, hidden_dims=(8,)))
        walks = pipe.walk(num_frames=4, generator=seed(0))
        walks.save(str(tmp_path / "walk.GIF"))
        with Image.open(tmp_path / "walk.GIF") as film:
            assert film.n_frames == 4
            film.seek(2)
            assert np.array_equal(np.array(film.convert("L")), np.array(walks.images[0][2]))

    @pytest.mark.skipif(not HAS_VIDEO, reason="needs imageio and imageio-ffmpeg")
    def test_mp4_has_all_the_frames(self, tmp_path):
        import imageio

        make_pipeline(sample_size=64).walk(num_frames=6).save(tmp_path / "walk.mp4", fps=10)
        assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"]
        assert sum(1 for _ in imageio.get_reader(tmp_path / "walk.mp4")) == 6

    @pytest.mark.skipif(HAS_VIDEO, reason="imageio and imageio-ffmpeg are there")
    def test_mp4_without_its_packages_is_refused(self, tmp_path):
        with pytest.raises(ImportError, match="run `pip install imageio imageio-ffmpeg`") as error:
            make_pipeline().walk(num_frames=2).save(tmp_path / "walk.mp4")
        assert "\n" not in str(error.value) and not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name, fps, message", [("walk.avi", 12, "ends in .gif"), ("walk", 12, "ends in .gif")])
    def test_other_endings_are_refused(self, tmp_path, name, fps, message):
        with pytest.raises(ValueError, match=message):
            make_pipeline().walk(num_frames=2).save(tmp_path / name, fps=fps)

    @pytest.mark.parametrize("fps", [0, -1, math.nan, 60, 0.001, "12"])
    def test_other_speeds_are_refused(self, tmp_path, fps):
        with pytest.raises(ValueError, match="`fps`"):
            make_pipeline().walk(num_frames=2).save(tmp_path / "walk.gif", fps=fps)

    def test_images_of_two_channels_are_no_pictures(self, tmp_path):
        walks = make_pipeline(out_channels=2).walk(num_frames=2, output_type="pt")
        for write in (walks.grid, lambda: walks.save(tmp_path / "walk.gif")):
            with pytest.raises(ValueError, match="no images of 2 channels"):
                write()


class TestPublishing:
    def test_loads_in_both_ways(self, tmp_path):
        pipe = diffusers_ext.GANPipeline(**GANConfig().get_components())
        inputs = {"class_labels": ["three", 0], "truncation": 1.0, "output_type": "np"}
        expected = pipe(**inputs, generator=seed(0)).images
        pipe.save_pretrained(tmp_path)
        ours = diffusers_ext.GANPipeline.from_pretrained(tmp_path)
        assert type(ours.generator) is DCGANGenerator and type(ours.discriminator) is DCGANDiscriminator
        np.testing.assert_array_equal(ours(**inputs, generator=seed(0)).images, expected)

        theirs = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
        assert type(theirs.generator).__module__.startswith("diffusers_modules")
        np.testing.assert_array_equal(theirs(**inputs, generator=seed(0)).images, expected)
        assert theirs.interpolate([1], num_frames=3).grid().size == (48, 8)

    def test_loads_where_this_package_is_not(self, tmp_path):
        diffusers_ext.GANPipeline(make_generator()).save_pretrained(tmp_path)
        code = (
            "import sys; sys.modules['diffusers_ext'] = None\n"
            "from diffusers import DiffusionPipeline\n"
            "pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
            "print(pipe(class_labels=[1, 2], output_type='np').images.shape)\n"
        )
        result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
        assert result.stdout.strip() == "(2, 8, 16, 3)", result.stderr


class TestRefusals:
    @pytest.mark.parametrize(
        "inputs, message",
        [
            ({}, "`class_labels` must be given"),
            ({"batch_size": 2}, "`class_labels` must be given"),
            ({"class_labels": 4}, "There is no class 4: the class ids are 0 to 3"),
            ({"class_labels": [0, -1]}, "There is no class -1"),
            ({"class_labels": "thre"}, "did you mean one of 'three'"),
            ({"class_labels": []}, "is empty"),
            ({"class_labels": [1.0]}, "must hold class ids"),
            ({"class_labels": True}, "must hold class ids"),
            ({"class_labels": 1, "batch_size": 2}, "`batch_size` is for unconditional images"),
            ({"class_labels": 1, "num_images_per_label": 0}, "`num_images_per_label` must be a positive integer"),
            ({"class_labels": 1, "truncation": 0}, "`truncation` must be a positive number"),
            ({"class_labels": 1, "truncation": math.nan}, "`truncation` must be a positive number"),
            ({"class_labels": 1, "truncation": True}, "`truncation` must be a positive number"),
            (
                {"class_labels": 1, "truncation": 1.0, "latents": torch.zeros(1, 6)},
                "`truncation` is for random latents",
            ),
            ({"class_labels": 1, "latents": torch.zeros(2, 6)}, r"of the shape \(1, 6\), but is \(2, 6\)"),
            ({"class_labels": 1, "latents": torch.zeros(1, 5)}, r"of the shape \(N, 6\), but is \(1, 5\)"),
            ({"class_labels": 1, "latents": [[0.0] * 6]}, r"of the shape \(N, 6\), but is list"),
            ({"class_labels": [1, 2], "generator": generators([0])}, "a list of 2, but is a list of 1"),
            (
                {"class_labels": 1, "generator": 42},
                "`generator` must be a torch.Generator or a list of them, but has 42",
            ),
            ({"class_labels": 1, "output_type": "jpg"}, "`output_type` must be"),
            ({"class_labels": 1, "categories": 0}, "`categories` must be left out"),
            ({"class_labels": 1, "continuous_codes": [0.0]}, "`continuous_codes` must be left out"),
        ],
    )
    def test_of_a_conditional_pipeline(self, inputs, message):
        with pytest.raises(ValueError, match=message) as error:
            GANConfig().get_pipeline()(**inputs)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        "inputs, message",
        [
            ({"class_labels": 1}, "`class_labels` must be left out"),
            ({"batch_size": 0}, "`batch_size` must be a positive integer"),
            ({"batch_size": 2.0}, "`batch_size` must be a positive integer"),
            ({"num_images_per_label": 2}, "`num_images_per_label` needs `class_labels`"),
            ({"latents": torch.zeros(0, 6)}, r"of the shape \(N, 6\), but is \(0, 6\)"),
            ({"batch_size": 3, "latents": torch.zeros(2, 6)}, r"of the shape \(3, 6\), but is \(2, 6\)"),
            ({"categories": 3}, "`categories` must be integers from 0 to 2"),
            ({"categories": 0.5}, "`categories` must be integers from 0 to 2"),
            ({"categories": "one"}, "`categories` must hold numbers"),
            ({"batch_size": 3, "categories": [0, 1]}, "`categories` must be 3 categories, or one for all"),
            ({"continuous_codes": [0.0]}, r"`continuous_codes` must be of the shape \(1, 2\)"),
            ({"continuous_codes": [[0.0, math.inf]]}, "and finite"),
        ],
    )
    def test_of_an_unconditional_pipeline(self, inputs, message):
        pipe = make_pipeline(num_categories=3, num_continuous_codes=2)
        with pytest.raises(ValueError, match=message) as error:
            pipe(**inputs)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        "inputs, message",
        [
            ({"num_frames": 1}, "`num_frames` must be an integer of at least 2"),
            ({"num_points": 1}, "`num_points` must be an integer of at least 2"),
            ({"latents": torch.zeros(1, 1, 6)}, "`num_points` must be an integer of at least 2"),
            ({"latents": torch.zeros(2, 6)}, r"of the shape \(N, 4, 6\), but is \(2, 6\)"),
            ({"batch_size": 2, "latents": torch.zeros(1, 3, 6)}, r"of the shape \(2, 3, 6\), but is \(1, 3, 6\)"),
            ({"batch_size": 2, "generator": generators([0])}, "a list of 2, but is a list of 1"),
        ],
    )
    def test_of_a_walk(self, inputs, message):
        with pytest.raises(ValueError, match=message):
            make_pipeline().walk(**inputs)

    def test_of_labels_without_classes(self):
        with pytest.raises(ValueError, match="`class_labels` must be left out"):
            make_pipeline().get_label_ids(1)

    def test_of_an_interpolation(self):
        with pytest.raises(ValueError, match="the two ends of each row, but hold 3"):
            make_pipeline().interpolate(latents=torch.zeros(1, 3, 6))

    def test_pictures_of_two_channels(self):
        pipe = make_pipeline(out_channels=2)
        with pytest.raises(ValueError, match="PIL has no images of 2 channels"):
            pipe()
        assert pipe(output_type="np").images.shape == (1, 8, 16, 2)

    def test_a_batch_of_one_in_training_mode(self):
        pipe = make_pipeline()
        pipe.generator.train()
        with pytest.raises(ValueError, match="batch of one"):
            pipe()

    def test_a_generator_of_something_else(self):
        with pytest.raises(ValueError, match="`generator` must make images .* its class is UNetGenerator"):
            GANPipeline(diffusers_ext.UNetGenerator(block_out_channels=(4, 4)))

    @pytest.mark.parametrize("id2label", [{4: "four"}, {"x": "ten"}])
    def test_names_of_other_classes(self, id2label):
        with pytest.raises(ValueError, match="`id2label`"):
            GANPipeline(make_generator(), id2label=id2label)

    def test_names_of_no_classes(self):
        with pytest.raises(ValueError, match="has the label 0, but the generator has 0 classes"):
            GANPipeline(make_generator(None), id2label={0: "zero"})
