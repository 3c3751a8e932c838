import math

import pytest
import torch

from diffusers_ext.models import GatedPixelCNN, PixelCNN, PixelCNNPlusPlus, PixelTransformer
from diffusers_ext.models.modeling_mlp_gan import MLPGenerator
from diffusers_ext.pipelines.pipeline_autoregressive import AutoregressivePipeline
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
)


NAMES = {0: "zero", 1: "one", 2: "two", 3: "three"}
MODELS = {
    "pixelcnn": lambda **options: PixelCNN(hidden_channels=3, num_layers=1, num_levels=5, **options),
    "gated": lambda **options: GatedPixelCNN(hidden_channels=6, dilations=(1, 2), num_levels=5, **options),
    "pp": lambda **options: PixelCNNPlusPlus(hidden_channels=4, num_resnets=1, num_mixtures=2, **options),
    "transformer": lambda **options: PixelTransformer(hidden_size=8, num_layers=1, num_levels=5, **options),
}


def make_model(kind: str = "gated", **changes):
    torch.manual_seed(0)
    model = MODELS[kind](**{"sample_size": (8, 4), "num_classes": 4, **changes}).eval()
    if kind != "pp":
        with torch.no_grad():  # fresh weights hardly distinguish levels
            model.proj_out.weight.mul_(30)
    return model


class AutoregressiveConfig(PipelineTesterConfig):
    pipeline_class = AutoregressivePipeline
    output_shape = (3, 3, 8, 4)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {"model": make_model(), "id2label": NAMES}

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class MixtureConfig(AutoregressiveConfig):
    def get_components(self):
        return {"model": make_model("pp"), "id2label": NAMES}


class TestOutput(AutoregressiveConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(AutoregressiveConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(AutoregressiveConfig, PipelineRandomnessTesterMixin):
    def test_latents_are_the_first_noise(self):
        pipe = self.get_pipeline()
        latents = torch.rand((3, 8, 4, 3, 1), generator=torch.Generator().manual_seed(0))
        assert_equal(self.run(pipe, latents=latents), self.run(pipe, seed=1, latents=latents))
        assert_equal(self.run(pipe, latents=latents), self.run(pipe))


class TestBatch(AutoregressiveConfig, PipelineBatchTesterMixin):
    pass


class TestMixtureBatch(MixtureConfig, PipelineBatchTesterMixin):
    pass


class TestDtype(MixtureConfig, PipelineDtypeTesterMixin):
    test_latents_stay_in_float32 = None  # its images do, which no callback has as latents


@pytest.mark.parametrize("kind", MODELS)
def test_the_cache_changes_no_image(kind):
    pipe = AutoregressivePipeline(make_model(kind))
    inputs = {"class_labels": [1, 2], "output_type": "pt"}
    cached, whole = (
        pipe(**inputs, use_cache=use_cache, generator=torch.Generator().manual_seed(0)).images
        for use_cache in (True, False)
    )
    torch.testing.assert_close(cached, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_bits_per_dim_are_those_of_the_drawn_pixels(kind):
    model = make_model(kind)
    pipe = AutoregressivePipeline(model, id2label=NAMES)
    levels = torch.randint(model.config.num_levels, (2, 3, 8, 4), generator=torch.Generator().manual_seed(0))
    images = levels / (model.config.num_levels - 1)
    parameters = model(2 * images - 1, torch.tensor([2, 0])).parameters
    nats = -model.log_prob(parameters, 2 * images - 1).sum(dim=(1, 2))
    found = pipe.bits_per_dim(images, class_labels=["two", 0])
    torch.testing.assert_close(found, nats / math.log(2) / 96)
    by_class = torch.stack([pipe.bits_per_dim(images, class_labels=label) for label in NAMES], dim=1)
    expected = (-by_class.double() * 96 * math.log(2)).softmax(dim=1).float()
    torch.testing.assert_close(pipe.classify(images), expected, rtol=0, atol=1e-3)


def test_completion_keeps_what_is_given_and_draws_the_rest_by_it():
    pipe = AutoregressivePipeline(make_model())
    image = torch.randint(5, (3, 8, 4), generator=torch.Generator().manual_seed(0)) / 4
    inputs = {"class_labels": [0, 1], "image": image, "output_type": "pt"}
    half = pipe(**inputs, generator=torch.Generator().manual_seed(0)).images
    assert torch.equal(half[:, :, :4], image[:, :4].expand(2, -1, -1, -1))
    assert not torch.equal(half[:, :, 4:], image[:, 4:].expand(2, -1, -1, -1))
    whole = pipe(class_labels=[0, 1], output_type="pt", generator=torch.Generator().manual_seed(0)).images
    box = pipe(**inputs, mask_image=(0, 0, 4, 8), generator=torch.Generator().manual_seed(0)).images
    assert_equal(box, whole)  # with nothing given, it is what is drawn without an image
    other = pipe(**{**inputs, "image": 1 - image}, generator=torch.Generator().manual_seed(0)).images
    assert not torch.equal(other[:, :, 4:], half[:, :, 4:])


def test_a_lower_temperature_draws_likelier_images():
    pipe = AutoregressivePipeline(make_model(sample_size=(4, 4)))
    bits = []
    for temperature in (0.05, 1.0):
        images = pipe(class_labels=[0] * 8, temperature=temperature, output_type="pt").images
        bits.append(pipe.bits_per_dim(images, class_labels=0).mean())
    assert bits[0] < bits[1]


def test_the_callback_sees_and_changes_each_row():
    pipe, rows = AutoregressivePipeline(make_model()), []

    def callback(pipe, row, timestep, tensors):
        rows.append(row)
        assert tensors["images"].shape == (1, 3, 8, 4) and not tensors["images"][:, :, row + 1 :].any()
        return {"images": torch.zeros_like(tensors["images"])} if row == 7 else None

    assert (pipe(class_labels=0, output_type="pt", callback_on_step_end=callback).images == 0.5).all()
    assert rows == list(range(8))

    def stop(pipe, row, timestep, tensors):
        pipe._interrupt = True

    stopped = pipe(class_labels=0, output_type="pt", callback_on_step_end=stop).images
    assert (stopped[:, :, 1:] == 0.5).all() and (stopped[:, :, :1] != 0.5).any()


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"class_labels": 4}, "There is no class 4"),
        ({"temperature": 0}, "`temperature` must be a positive number"),
        ({"mask_image": (0, 0, 1, 1)}, "`mask_image` is for completing an `image`"),
        ({"image": torch.zeros(3, 8, 5)}, "must have the network's height and width"),
        ({"image": torch.zeros(3, 3, 8, 4), "class_labels": [0, 1]}, "`image` must be one image or 2"),
        ({"latents": torch.zeros(1, 8, 4, 1, 1)}, "`latents` must be a tensor of the shape"),
        ({"output_type": "latent"}, "`output_type` must be"),
    ],
)
def test_refusals(inputs, message):
    with pytest.raises(ValueError, match=message):
        AutoregressivePipeline(make_model())(**{"class_labels": 0, **inputs})


def test_networks_and_questions_that_do_not_fit():
    with pytest.raises(ValueError, match="`model` must predict pixels .* but is a MLPGenerator"):
        AutoregressivePipeline(MLPGenerator(4))
    with pytest.raises(ValueError, match="has no classes"):
        AutoregressivePipeline(make_model(num_classes=None)).classify(torch.zeros(3, 8, 4))
    with pytest.raises(ValueError, match="`class_labels` must be given"):
        AutoregressivePipeline(make_model()).bits_per_dim(torch.zeros(3, 8, 4))
