import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext.models import ResnetGenerator, StarGANGenerator
from diffusers_ext.pipelines import AttributeTranslationPipeline
from tests.pipelines.testing import PipelineSaveLoadTesterMixin, PipelineTesterConfig, assert_equal


NAMES = {0: "day", 1: "night", 2: "fog"}


def network() -> StarGANGenerator:
    torch.manual_seed(0)
    return StarGANGenerator(8, num_domains=3, base_channels=2, num_blocks=1).eval()


def images(count=2, size=(8, 12)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


class TestAttributeSaveLoad(PipelineTesterConfig, PipelineSaveLoadTesterMixin):
    pipeline_class = AttributeTranslationPipeline
    output_shape = (2, 3, 8, 12)

    def get_components(self):
        return {"generator": network(), "id2label": NAMES}

    def get_inputs(self):
        return {"image": list(images()), "target": ["night", 2]}

    def run(self, pipe, seed=0, **changes):
        return run(pipe, **self.get_inputs())


@pytest.fixture(scope="module")
def pipe():
    return AttributeTranslationPipeline(network(), id2label=NAMES)


def run(pipe, image, target, **arguments):
    return pipe(image, target, output_type="pt", **arguments).images


@torch.no_grad()
def test_translations_are_the_networks(pipe):
    labels = torch.tensor([[0.0, 1, 0], [1, 0, 1]])
    expected = (pipe.generator(images() * 2 - 1, labels).sample / 2 + 0.5).clamp(0, 1)
    assert_equal(run(pipe, images(), ["night", ("day", 2)]), expected)
    torch.testing.assert_close(run(pipe, images(), [1, (2, "day")], batch_size=1), expected)
    torch.testing.assert_close(run(pipe, images(), "night")[:1], expected[:1])
    arrays = pipe(images(), "night", output_type="np", return_dict=False)[0]
    assert_equal(torch.from_numpy(arrays).permute(0, 3, 1, 2), run(pipe, images(), "night"))
    none = (pipe.generator(images(1) * 2 - 1, torch.zeros(1, 3)).sample / 2 + 0.5).clamp(0, 1)
    assert_equal(run(pipe, images(1), ()), none)


def test_any_size_is_padded_and_cropped(pipe):
    pictures = pipe([images(1, (5, 9))[0], images(1, (12, 8))[0]], ["day", "fog"]).images
    assert [picture.size for picture in pictures] == [(9, 5), (8, 12)]


def test_loads_without_this_package(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(other).__module__.startswith("diffusers_modules")
    torch.testing.assert_close(run(other, images(), "fog"), run(pipe, images(), "fog"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target": "nigth"}, "no class named 'nigth': did you mean one of 'night'"),
        ({"target": 3}, "no class 3"),
        ({"target": None}, "`target` must hold class ids"),
        ({"target": ["day"]}, "one domain or a list of 2, one for each image, but has 1"),
        ({"image": []}, "is empty"),
        ({"image": [images(1)[0], images(1, (8, 8))[0]], "output_type": "np"}, "Images of 2 sizes"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"output_type": "latent"}, "`output_type`"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"image": list(images()), "target": "day", **arguments})


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must translate images to domains, .* but is a ResnetGenerator"):
        AttributeTranslationPipeline(ResnetGenerator(base_channels=2, num_blocks=1))
    with pytest.raises(ValueError, match="has the label 3, but the network has 3 classes"):
        AttributeTranslationPipeline(network(), id2label={**NAMES, 3: "dusk"})
