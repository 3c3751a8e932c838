import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import SPADEEncoder, SPADEGenerator, UNetGenerator
from diffusers_ext.pipelines import SemanticSynthesisPipeline
from diffusers_ext.pipelines.label_maps import instance_edges, read_instance_map
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)


LABELS, LATENT = 6, 4


def network(**changes) -> SPADEGenerator:
    torch.manual_seed(0)
    options = {"sample_size": (8, 12), "num_labels": LABELS, "base_channels": 2, "num_upsamplings": 2}
    options |= {"modulation_channels": 4, "latent_dim": LATENT}
    model = SPADEGenerator(**{**options, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def style_encoder(**changes) -> SPADEEncoder:
    torch.manual_seed(1)
    return SPADEEncoder(**{"sample_size": 8, "base_channels": 2, "latent_dim": LATENT, **changes}).eval()


def label_maps(count=2, size=(8, 12)) -> torch.Tensor:
    return torch.randint(0, LABELS, (count, *size), generator=torch.Generator().manual_seed(0))


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, LABELS).movedim(-1, 1).float()


class SemanticConfig(PipelineTesterConfig):
    pipeline_class = SemanticSynthesisPipeline
    output_shape = (2, 3, 8, 12)
    batch_params = ("label_map",)
    num_images_param = "num_images_per_input"

    def get_components(self):
        return {"generator": network(), "style_encoder": style_encoder()}

    def get_inputs(self):
        return {"label_map": list(label_maps())}


class TestSemanticOutput(SemanticConfig, PipelineOutputTesterMixin):
    pass


class TestSemanticSaveLoad(SemanticConfig, PipelineSaveLoadTesterMixin):
    pass


class TestSemanticBatch(SemanticConfig, PipelineBatchTesterMixin):
    pass


@pytest.fixture(scope="module")
def pipe():
    return SemanticSynthesisPipeline(network(), style_encoder())


@pytest.fixture(scope="module")
def plain():
    return SemanticSynthesisPipeline(network(latent_dim=None))


def run(pipe, label_map, **arguments):
    return pipe(label_map, output_type="pt", **arguments).images


def test_images_are_the_networks(pipe, plain):
    labels, latents = label_maps(), torch.randn(2, LATENT, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for own, inputs in ((pipe, (one_hot(labels), latents)), (plain, (one_hot(labels),))):
            expected = (own.generator(*inputs).sample / 2 + 0.5).clamp(0, 1)
            options = {"latents": latents} if own is pipe else {}
            assert_equal(run(own, list(labels), **options), expected)


def test_all_kinds_of_label_maps_are_equal(plain, tmp_path):
    (labels,) = label_maps(1)
    numbers = labels.numpy().astype(np.uint8)
    indices = Image.fromarray(numbers, "L")
    palette = Image.fromarray(numbers, "P")
    palette.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    palette.save(tmp_path / "map.png")
    both_one_hot = [one_hot(labels[None])[0], one_hot(labels[None])[0].long()]
    expected = run(plain, labels)
    for label_map in (numbers, indices, palette, str(tmp_path / "map.png"), *both_one_hot):
        assert_equal(run(plain, label_map), expected)


@pytest.mark.parametrize("size", [(9, 14), (1, 1), (5, 40)])
def test_any_size_is_padded_and_cropped_without_a_style(plain, size):
    labels = label_maps(1, size)
    output = run(plain, list(labels))
    assert output.shape == (1, 3, *size)
    below, right = (-side % 4 for side in size)
    padded = torch.nn.functional.pad(labels[:, None].float(), (0, right, 0, below), mode="replicate")[:, 0].long()
    assert_equal(output, run(plain, list(padded))[..., : size[0], : size[1]])


def test_styles_come_from_the_generator_and_differ(pipe):
    labels, state = list(label_maps()), torch.get_rng_state()
    first, again, other = (run(pipe, labels, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert_equal(first, again)
    assert not torch.equal(first, other) and torch.equal(state, torch.get_rng_state())
    several = run(pipe, labels, num_images_per_input=3, generator=generators(range(6)))
    assert several.shape == (6, 3, 8, 12) and not torch.equal(several[0], several[1])
    assert_equal(run(pipe, labels[1], generator=generators([4])), several[4:5])
    assert_equal(run(pipe, labels, num_images_per_input=3, generator=generators(range(6)), batch_size=4), several)


def test_a_style_image_decides_the_distribution_of_the_style(pipe):
    labels = list(label_maps())
    style = torch.rand(2, 3, 20, 10, generator=torch.Generator().manual_seed(3))
    output = run(pipe, labels, style_image=list(style), generator=generators([0, 1]))
    with torch.no_grad():
        posterior = pipe.style_encoder(style * 2 - 1).latent_dist
        noise = torch.cat([torch.randn(1, LATENT, generator=generator) for generator in generators([0, 1])])
        expected = pipe.generator(one_hot(label_maps()), posterior.mean + posterior.std * noise).sample
    assert_equal(output, (expected / 2 + 0.5).clamp(0, 1))
    one = run(pipe, labels, style_image=style[0], generator=generators([0, 1]))
    assert_equal(one[:1], output[:1])


def test_edges_are_where_neighbours_differ():
    objects = np.array([[7, 7, 300], [7, 7, 300], [7, 7, 7]], np.uint16)
    expected = torch.tensor([[0.0, 1, 1], [0, 1, 1], [0, 0, 1]])[None]
    for image in (objects, Image.fromarray(objects), torch.from_numpy(objects.astype(np.int64))):
        assert_equal(instance_edges(read_instance_map("instance_map", image)), expected)
    colours = np.stack([np.zeros_like(objects), objects % 256, objects // 256], axis=-1).astype(np.uint8)
    assert_equal(instance_edges(read_instance_map("instance_map", Image.fromarray(colours))), expected)
    with pytest.raises(ValueError, match="`instance_map` must be a picture"):
        read_instance_map("instance_map", [1, 2])


def test_instance_maps_are_the_last_channel():
    pipe = SemanticSynthesisPipeline(network(latent_dim=None, instance_edges=True))
    labels, objects = label_maps(1), torch.zeros(8, 12)
    objects[:, 6:] = 1
    edges = torch.zeros(1, 1, 8, 12)
    edges[..., 5:7] = 1
    with torch.no_grad():
        expected = pipe.generator(torch.cat([one_hot(labels), edges], dim=1)).sample
    assert_equal(run(pipe, labels[0], instance_map=objects), (expected / 2 + 0.5).clamp(0, 1))
    with pytest.raises(ValueError, match="`instance_map` is missing, and this generator was trained with the edges"):
        run(pipe, labels[0])
    with pytest.raises(ValueError, match="an entry of the size"):
        run(pipe, labels[0], instance_map=objects[:4])


def test_loads_without_this_package(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(other).__module__.startswith("diffusers_modules")
    style = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(3))
    first, second = (
        run(p, list(label_maps()), style_image=style, generator=generators([0, 1])) for p in (pipe, other)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"label_map": []}, "is empty"),
        ({"label_map": label_maps(1)[0] + 1}, "has the label 6, but the network knows those from 0 to 5"),
        ({"label_map": torch.rand(3, 8, 12)}, "must be a label map"),
        ({"label_map": [torch.zeros(8, 12).long(), torch.zeros(8, 8).long()]}, "must have one size"),
        ({"label_map": torch.zeros(8, 8).long()}, r"height and width of the training, \(8, 12\)"),
        ({"latents": torch.zeros(1, LATENT)}, "`latents` must be a tensor of the shape"),
        ({"style_image": torch.rand(3, 3, 8, 8)}, "one image or 2, one for each input, not 3"),
        ({"style_image": torch.rand(3, 8, 8), "latents": torch.zeros(2, LATENT)}, "both give the style"),
        ({"instance_map": torch.zeros(8, 12)}, "needs a generator with `instance_edges`"),
        ({"num_images_per_input": 0}, "positive integer"),
        ({"generator": generators([0])}, "one generator or a list of 2"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"output_type": "latent"}, "`output_type`"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"label_map": list(label_maps()), **arguments})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_images_per_input": 2}, "needs a generator with `latent_dim`"),
        ({"latents": torch.zeros(1, LATENT)}, "`latents` needs a generator with `latent_dim`"),
        ({"style_image": torch.rand(3, 8, 8)}, "`style_image` needs the `style_encoder`"),
    ],
)
def test_styles_of_a_network_without_are_refused(plain, arguments, message):
    with pytest.raises(ValueError, match=message):
        plain(label_maps(1)[0], **arguments)


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`generator` must make images of label maps, .* but is a UNetGenerator"):
        SemanticSynthesisPipeline(UNetGenerator(block_out_channels=(4, 8)))
    with pytest.raises(ValueError, match="makes latents of length 3, but `generator` takes 4"):
        SemanticSynthesisPipeline(network(), style_encoder(latent_dim=3))
