import pytest
import torch

from diffusers_ext.models import EnergyConvNet, EnergyMLP, EnergyResNet
from diffusers_ext.models.modeling_mlp_gan import MLPGenerator
from diffusers_ext.pipelines.pipeline_energy import EnergyPipeline
from diffusers_ext.schedulers import LangevinScheduler
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineCallbackTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
)


NAMES = {0: "zero", 1: "one", 2: "two", 3: "three"}


def make_model(model_class=EnergyConvNet, **changes):
    options = {
        EnergyConvNet: {"hidden_channels": (4, 6), "strides": (1, 2), "head_dim": 5},
        EnergyMLP: {"hidden_dims": (8,)},
        EnergyResNet: {"hidden_channels": (4, 4)},
    }[model_class]
    torch.manual_seed(0)
    model = model_class(**{"sample_size": (6, 4), "in_channels": 3, "num_classes": 4, **options, **changes}).eval()
    with torch.no_grad():  # fresh networks are nearly flat
        model.proj_out.weight.mul_(10)
    return model


def make_pipeline(model_class=EnergyConvNet, **changes) -> EnergyPipeline:
    pipe = EnergyPipeline(make_model(model_class, **changes), LangevinScheduler(4, noise_std=0.05), id2label=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class EnergyConfig(PipelineTesterConfig):
    pipeline_class = EnergyPipeline
    output_shape = (3, 3, 6, 4)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {"model": make_model(), "scheduler": LangevinScheduler(4, noise_std=0.05), "id2label": NAMES}

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class TestOutput(EnergyConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(EnergyConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(EnergyConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(EnergyConfig, PipelineBatchTesterMixin):
    pass


class TestCallback(EnergyConfig, PipelineCallbackTesterMixin):
    pass


class TestDtype(EnergyConfig, PipelineDtypeTesterMixin):
    pass


def images(count: int = 3) -> torch.Tensor:
    return torch.rand((count, 3, 6, 4), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_chains_go_down_the_energy():
    pipe = make_pipeline()
    starts = 2 * images(8) - 1
    call = {"class_labels": 2, "num_images_per_label": 8, "num_inference_steps": 50, "output_type": "pt"}
    ends = pipe(**call, latents=starts).images
    assert (pipe.energy(ends, 2) < pipe.energy(images(8), 2)).all()


@torch.no_grad()
def test_energies_and_classes_are_those_of_the_network():
    for model_class in (EnergyMLP, EnergyResNet):
        pipe = make_pipeline(model_class)
        by_class = torch.stack([pipe.energy(images(), label) for label in range(4)], dim=1)
        expected = pipe.model(2 * images() - 1, torch.tensor([2, 0, 2])).energy
        torch.testing.assert_close(pipe.energy(images(), [2, 0, 2]), expected)
        torch.testing.assert_close(by_class[torch.arange(3), torch.tensor([2, 0, 2])], expected)
        torch.testing.assert_close(pipe.classify(images()), (-by_class).softmax(dim=1))
        torch.testing.assert_close(pipe.energy(images()), -(-by_class).logsumexp(dim=1))


def test_what_is_given_stays_and_guides_the_rest():
    pipe = make_pipeline(num_classes=None)
    given, box = images(2), (0, 0, 4, 3)  # the upper half is made

    def fill(image):
        generator = torch.Generator().manual_seed(0)
        return pipe(image=image, mask_image=box, generator=generator, output_type="pt").images

    filled = fill(given)
    torch.testing.assert_close(filled[:, :, 3:], given[:, :, 3:], rtol=0, atol=1e-6)
    assert not torch.equal(filled[:, :, :3], given[:, :, :3])
    hidden = torch.cat([1 - given[:, :, :3], given[:, :, 3:]], dim=2)
    assert_equal(fill(hidden), filled)
    other = torch.cat([given[:, :, :3], 1 - given[:, :, 3:]], dim=2)
    assert not torch.equal(fill(other)[:, :, :3], filled[:, :, :3])


@pytest.mark.parametrize("composition", ["and", "or", "not"])
def test_energies_are_composed(composition):
    pipe, other = make_pipeline(), make_model(EnergyMLP, num_classes=None)
    sample, labels = 2 * images() - 1, torch.tensor([0, 1, 2])
    found = pipe._compose(labels, [3], other, composition, 0.5)(sample)
    first = pipe.model(sample, labels).energy
    rest = 0.5 * torch.stack([pipe.model(sample, torch.full((3,), 3)).energy, other(sample).energy])
    expected = {
        "and": first + rest.sum(dim=0),
        "or": -((-first).exp() + (-rest).exp().sum(dim=0)).log(),
        "not": first - rest.sum(dim=0),
    }
    torch.testing.assert_close(found, expected[composition])
    call = {"class_labels": [0], "other_class_labels": [3], "composition": composition, "output_type": "pt"}
    composed = pipe(**call, other_models=[other], generator=torch.Generator().manual_seed(0)).images
    alone = pipe(class_labels=[0], output_type="pt", generator=torch.Generator().manual_seed(0)).images
    assert not torch.equal(composed, alone)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"class_labels": 4}, "There is no class 4"),
        ({"class_labels": 0, "other_class_labels": 9}, "There is no class 9"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be a positive integer"),
        ({"composition": "xor"}, "`composition` must be one of and, or, not"),
        ({"other_weight": float("inf")}, "`other_weight` must be a finite number"),
        ({"image": torch.zeros(3, 6, 4)}, "`image` and `mask_image` .* go together"),
        ({"mask_image": (0, 0, 1, 1)}, "`image` and `mask_image` .* go together"),
        ({"image": torch.zeros(3, 6, 5), "mask_image": (0, 0, 1, 1)}, "must have the network's height and width"),
        ({"latents": torch.zeros(2, 3, 6, 4), "batch_size": 1}, "`latents` must be a tensor of the shape"),
        ({"output_type": "latent"}, "`output_type` must be"),
    ],
)
def test_refusals(inputs, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline()(**inputs)


def test_networks_and_questions_that_do_not_fit():
    with pytest.raises(ValueError, match="`model` must compute energies, but is a MLPGenerator"):
        EnergyPipeline(MLPGenerator(4), LangevinScheduler())
    with pytest.raises(ValueError, match="has no classes"):
        make_pipeline(num_classes=None).classify(images())
    with pytest.raises(ValueError, match="`class_labels` must be left out"):
        make_pipeline(num_classes=None)(class_labels=1)
    with pytest.raises(ValueError, match="`class_labels` must be given"):
        make_pipeline(EnergyResNet)()
