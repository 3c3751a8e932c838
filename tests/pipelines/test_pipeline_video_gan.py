import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import DVDGANGenerator
from diffusers_ext.pipelines import VideoGANPipeline
from diffusers_ext.pipelines.films import write_film
from tests.pipelines.testing import (
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)


class VideoGANConfig(PipelineTesterConfig):
    pipeline_class = VideoGANPipeline
    output_shape = (2, 3, 1, 8, 8)
    latents_shape = (2, 4)

    def get_components(self):
        torch.manual_seed(0)
        generator = DVDGANGenerator(3, 2, 1, 4, 2, (6, 4), (1,)).eval()
        return {"generator": generator, "id2label": {0: "one", 1: "two"}}

    def get_inputs(self):
        return {"class_labels": ["two", 0]}

    def run(self, pipe, seed=0, **changes):
        inputs = {**self.get_inputs(), "generator": torch.Generator().manual_seed(seed), "output_type": "pt"}
        # Weights that are mapped from a file have other addresses, on which the last bits depend.
        return pipe(**{**inputs, **changes}).frames.mul(1000).round()


class TestVideoGANSaveLoad(VideoGANConfig, PipelineSaveLoadTesterMixin):
    pass


class TestVideoGANRandomness(VideoGANConfig, PipelineRandomnessTesterMixin):
    pass


@pytest.fixture(scope="module")
def pipe():
    return VideoGANConfig().get_pipeline()


def test_films_come_as_tensors_arrays_and_pictures(pipe, tmp_path):
    latents = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    films = pipe([1, 0], latents=latents, output_type="pt").frames
    assert films.shape == (2, 3, 1, 8, 8) and 0 <= films.min() < films.max() <= 1
    expected = pipe.generator(latents, torch.tensor([1, 0])).sample.transpose(1, 2)
    torch.testing.assert_close(films, (expected / 2 + 0.5).clamp(0, 1))
    arrays = pipe([1, 0], latents=latents, output_type="np").frames
    assert arrays.shape == (2, 3, 8, 8, 1)
    frames = pipe([1, 0], latents=latents).frames[0]
    write_film(frames, tmp_path / "film.gif", fps=10)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3 and film.size == (8, 8)


def test_a_film_depends_on_its_own_generator_alone(pipe):
    both = pipe(["one", "two"], generator=generators([1, 2]), output_type="pt").frames
    alone = pipe("two", generator=generators([2]), output_type="pt").frames
    torch.testing.assert_close(both[1:], alone)
    assert pipe("one", num_videos_per_label=2, num_frames=5, output_type="pt").frames.shape == (2, 5, 1, 8, 8)
    assert pipe.image_shape == (1, 8, 8)


def test_without_classes_and_without_this_package(tmp_path, pipe):
    plain = VideoGANPipeline(DVDGANGenerator(2, 2, 1, 4, None, (4,), (1,)).eval())
    assert plain(batch_size=3, output_type="pt").frames.shape == (3, 2, 1, 4, 4)
    with pytest.raises(ValueError, match="class_labels"):
        plain(class_labels=0)
    pipe.save_pretrained(tmp_path)
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(other).__module__.startswith("diffusers_modules")
    config = VideoGANConfig()
    assert_equal(config.run(other), config.run(pipe))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "class_labels"),
        ({"class_labels": "three"}, "three"),
        ({"class_labels": 2}, "There is no class 2"),
        ({"class_labels": 0, "num_frames": 0}, "`num_frames` must be"),
        ({"class_labels": 0, "latents": torch.zeros(1, 5)}, r"`latents` must be a tensor of the shape \(1, 4\)"),
        ({"class_labels": 0, "output_type": "gif"}, "`output_type` must be"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_names_of_other_classes_are_refused(pipe):
    with pytest.raises(ValueError, match="id2label"):
        VideoGANPipeline(pipe.generator, id2label={5: "six"})


def test_latents_say_how_many_films_there_are():
    torch.manual_seed(0)
    pipe = VideoGANPipeline(DVDGANGenerator(3, 2, 1, 4, None, (6, 4), (1,)).eval())
    films = pipe(latents=torch.randn(3, 4), output_type="pt").frames
    assert films.shape == (3, 3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"must be a tensor of the shape \(2, 4\)"):
        pipe(batch_size=2, latents=torch.randn(3, 4))
