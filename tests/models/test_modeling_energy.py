import pytest
import torch

from diffusers_ext.models import EnergyConvNet, EnergyMLP, EnergyResNet, EnergyWideResNet
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class EnergyConfig(ModelTesterConfig):
    output_shape = (3,)
    size = (6, 8)

    def get_inputs(self):
        sample = torch.rand((3, 2, *self.size), generator=torch.Generator().manual_seed(0)) * 2 - 1
        return {"sample": sample, "class_labels": torch.tensor([3, 0, 3])}


class EnergyMLPConfig(EnergyConfig):
    model_class = EnergyMLP

    def get_init_dict(self):
        return {"sample_size": self.size, "in_channels": 2, "hidden_dims": (8, 6), "num_classes": 4}


class EnergyConvNetConfig(EnergyConfig):
    model_class = EnergyConvNet

    def get_init_dict(self):
        return {
            "sample_size": self.size,
            "in_channels": 2,
            "hidden_channels": (4, 6),
            "strides": (1, 2),
            "head_dim": 5,
            "num_classes": 4,
        }


class EnergyResNetConfig(EnergyConfig):
    model_class = EnergyResNet

    def get_init_dict(self):
        return {"sample_size": self.size, "in_channels": 2, "hidden_channels": (4, 4, 4, 6), "num_classes": 4}

    def get_model(self):
        model = super().get_model()
        with torch.no_grad():  # fresh blocks are the identity
            for block in model.blocks:
                block.conv2.weight.normal_()
        return model


class EnergyWideResNetConfig(EnergyConfig):
    model_class = EnergyWideResNet

    def get_init_dict(self):
        return {"sample_size": self.size, "in_channels": 2, "depth": 10, "width": 1, "num_classes": 4}


class ClassEnergiesTesterMixin:
    """For networks that compute the energies of all classes at once."""

    @torch.no_grad()
    def test_energies_with_and_without_a_class(self):
        model, inputs = self.get_model(), self.get_inputs()
        output = model(inputs["sample"])
        torch.testing.assert_close(output.energy.neg().exp(), output.class_energies.neg().exp().sum(dim=1))
        of_class = model(**inputs).energy
        torch.testing.assert_close(of_class, output.class_energies[torch.arange(3), inputs["class_labels"]])
        single = self.model_class(**{**self.get_init_dict(), "num_classes": None})
        assert single(inputs["sample"]).class_energies is None


class TestEnergyMLP(EnergyMLPConfig, ModelTesterMixin, ClassEnergiesTesterMixin):
    pass


class TestEnergyConvNet(EnergyConvNetConfig, ModelTesterMixin, ClassEnergiesTesterMixin):
    pass


class TestEnergyWideResNet(EnergyWideResNetConfig, ModelTesterMixin, ClassEnergiesTesterMixin):
    pass


class TestEnergyResNet(EnergyResNetConfig, ModelTesterMixin):
    @torch.no_grad()
    def test_only_training_moves_the_estimates_of_spectral_norms(self):
        model, inputs = self.get_model(), self.get_inputs()
        before = model.conv_in.u.clone()
        model(**inputs)
        assert torch.equal(model.conv_in.u, before)
        for _ in range(50):
            model.train()(**inputs)
        conv = model.conv_in
        assert not torch.equal(conv.u, before)
        norm = torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2)
        # the bias is 0, so that a convolution with a single pixel of kernel multiplies by the normalized weight
        found = model.blocks[0].shortcut(torch.eye(4)[:, :, None, None])
        expected = model.blocks[0].shortcut.weight.flatten(1)
        torch.testing.assert_close(found[:, :, 0, 0].T, expected / torch.linalg.matrix_norm(expected, ord=2))
        assert (conv.u @ conv.weight.flatten(1)).norm() == pytest.approx(norm.item(), rel=1e-3)

    def test_a_conditional_network_needs_classes(self):
        with pytest.raises(ValueError, match="`class_labels` must be given"):
            self.get_model()(self.get_inputs()["sample"])


@pytest.mark.parametrize(
    "model_class, arguments, message",
    [
        (EnergyMLP, {"hidden_dims": (0,)}, "`hidden_dims` must be at least 1"),
        (EnergyMLP, {"num_classes": 1}, "`num_classes` must be at least 2, or None"),
        (EnergyConvNet, {"strides": (1,)}, "`strides` must be 4 numbers, one for each"),
        (EnergyConvNet, {"sample_size": 1, "first_padding": 0}, "`sample_size` is too small"),
        (EnergyResNet, {"hidden_channels": (4, 0)}, "`hidden_channels` must be at least 1"),
        (EnergyWideResNet, {"depth": 12}, "`depth` must be 4 more than a multiple of 6"),
        (EnergyWideResNet, {"normalization": "group"}, "`normalization` must be 'batch'.* but is 'group'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        model_class(**arguments)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ((torch.zeros(2, 2, 8, 8),), r"`sample` must be \(N, 1, 8, 8\), but is \(2, 2, 8, 8\)"),
        ((torch.zeros(2, 1, 8, 9),), r"`sample` must be \(N, 1, 8, 8\)"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2)), "`class_labels` must be left out"),
    ],
)
def test_images_and_classes_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        EnergyMLP(hidden_dims=(4,))(*inputs)
    with pytest.raises(ValueError, match=r"`class_labels` must be \(2,\), one per image"):
        EnergyMLP(hidden_dims=(4,), num_classes=3)(torch.zeros(2, 1, 8, 8), torch.zeros(3))
