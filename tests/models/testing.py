"""Tests of all models, as mixins: a test class combines a config class and a mixin."""

from abc import ABC, abstractmethod

import pytest
import torch
from diffusers import ModelMixin


class ModelTesterConfig(ABC):
    """The configuration of one model: tiny, but with real layers."""

    model_class: type[ModelMixin]
    output_shape: tuple[int, ...]

    @abstractmethod
    def get_init_dict(self) -> dict:
        """The constructor's arguments."""

    @abstractmethod
    def get_inputs(self) -> dict:
        """The arguments of `forward`, the same in each call."""

    def get_model(self) -> ModelMixin:
        """A model with the same random weights in each call. Zero weights would hide the layers before them."""
        torch.manual_seed(0)
        model = self.model_class(**self.get_init_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)
        return model.eval()

    def cast_inputs(self, dtype: torch.dtype) -> dict:
        return {name: cast(value, dtype) for name, value in self.get_inputs().items()}


def cast(value, dtype: torch.dtype):
    return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value


def first(output) -> torch.Tensor:
    """The main tensor of a `BaseOutput` or of a tuple; an embedder returns a tensor alone."""
    return output if torch.is_tensor(output) else output[0]


class ModelOutputTesterMixin:
    @torch.no_grad()
    def test_output_has_the_promised_shape_and_dtype(self):
        output = first(self.get_model()(**self.get_inputs()))
        assert output.shape == self.output_shape
        assert output.dtype == torch.float32
        assert output.isfinite().all()

    @torch.no_grad()
    def test_dict_and_tuple_are_equal(self):
        model, inputs = self.get_model(), self.get_inputs()
        as_dict = model(**inputs)
        if torch.is_tensor(as_dict):
            pytest.skip(f"{self.model_class.__name__} returns a tensor")
        as_tuple = model(**inputs, return_dict=False)
        assert isinstance(as_tuple, tuple)
        assert len(as_dict.to_tuple()) == len(as_tuple)
        for a, b in zip(as_dict.to_tuple(), as_tuple, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    @torch.no_grad()
    def test_same_input_same_output(self):
        model = self.get_model()
        torch.testing.assert_close(
            first(model(**self.get_inputs())), first(model(**self.get_inputs())), rtol=0, atol=0
        )


class ModelSaveLoadTesterMixin:
    # The weights must be equal, but outputs may differ by rounding: tensors that are mapped from a file have other
    # addresses, and the order of additions in a dot product depends on the address.
    loaded_tolerance = 1e-6

    @torch.no_grad()
    def test_loaded_model_is_the_saved_one(self, tmp_path):
        model = self.get_model()
        model.save_pretrained(tmp_path)
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
        loaded = self.model_class.from_pretrained(tmp_path)

        assert not loaded.training
        saved_state, state = model.state_dict(), loaded.state_dict()
        assert state.keys() == saved_state.keys()
        for name in state:
            torch.testing.assert_close(state[name], saved_state[name], rtol=0, atol=0, msg=name)
        torch.testing.assert_close(
            first(loaded(**self.get_inputs())), first(model(**self.get_inputs())), rtol=0, atol=self.loaded_tolerance
        )

    @torch.no_grad()
    def test_offloaded_to_the_disk_it_is_the_same_or_refused(self, tmp_path):
        model = self.get_model()
        for name, buffer in model.named_buffers():
            if name in model.state_dict() and buffer.is_floating_point():  # others are computed, not saved
                buffer.mul_(1.5)
        model.save_pretrained(tmp_path / "model")
        options = {"device_map": {"": "disk"}, "offload_folder": tmp_path / "offloaded"}
        if model.state_dict().keys() - {name for name, _ in model.named_parameters()}:
            with pytest.raises(ValueError, match=f"{self.model_class.__name__} can't be offloaded .*`device_map`"):
                self.model_class.from_pretrained(tmp_path / "model", **options)
        else:
            loaded = self.model_class.from_pretrained(tmp_path / "model", **options)
            torch.testing.assert_close(
                first(loaded(**self.get_inputs())), first(model(**self.get_inputs())), rtol=0, atol=1e-4
            )

    def test_config_makes_the_same_architecture(self, tmp_path):
        model = self.get_model()
        model.save_config(tmp_path)
        remade = self.model_class.from_config(self.model_class.load_config(tmp_path))

        config = {name: value for name, value in model.config.items() if not name.startswith("_")}
        for name, value in config.items():
            # JSON has no tuples
            assert as_lists(remade.config[name]) == as_lists(value), name
        assert {n: p.shape for n, p in remade.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}

    def test_loads_in_bfloat16(self, tmp_path):
        self.get_model().save_pretrained(tmp_path)
        loaded = self.model_class.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.dtype == torch.bfloat16


def as_lists(value):
    return [as_lists(entry) for entry in value] if isinstance(value, (list, tuple)) else value


class ModelDtypeTesterMixin:
    @torch.no_grad()
    def test_bfloat16_is_close_to_float32(self):
        model = self.get_model()
        exact = first(model(**self.get_inputs()))
        output = first(model.to(torch.bfloat16)(**self.cast_inputs(torch.bfloat16)))
        assert output.dtype == torch.bfloat16
        # 8 bits of mantissa, a few layers deep
        assert (output.float() - exact).norm() < 0.05 * exact.norm()


class ModelTrainingTesterMixin:
    def loss_gradients(self, model: ModelMixin) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        first(model(**self.get_inputs())).square().mean().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    def test_every_parameter_gets_a_gradient(self):
        gradients = self.loss_gradients(self.get_model().train())
        without = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
        assert without == []

    def test_gradient_checkpointing_changes_no_gradient(self):
        model = self.get_model().train()
        if not model._supports_gradient_checkpointing:
            pytest.skip(f"{self.model_class.__name__} does not offer gradient checkpointing")
        expected = self.loss_gradients(model)
        model.enable_gradient_checkpointing()
        assert model.is_gradient_checkpointing
        gradients = self.loss_gradients(model)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)


class ModelCompileTesterMixin:
    @torch.no_grad()
    def compare_compiled(self, backend: str):
        torch.compiler.reset()
        model = self.get_model()
        expected = first(model(**self.get_inputs()))
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        torch.testing.assert_close(first(compiled(**self.get_inputs())), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_compiles_as_one_graph(self):
        self.compare_compiled("eager")

    @pytest.mark.slow
    @torch.no_grad()
    def test_exports_for_any_batch_size(self):
        model, inputs = self.get_model(), self.get_inputs()
        batch = torch.export.Dim("batch", max=63)  # from 64 on, the upsampling of diffusers takes another path
        shapes = {name: {0: batch} if torch.is_tensor(value) else None for name, value in inputs.items()}
        exported = torch.export.export(model, (), inputs, dynamic_shapes=shapes).module()
        more = {name: torch.cat([value, value, value[:1]]) for name, value in inputs.items()}
        torch.testing.assert_close(first(exported(**more)), first(model(**more)), rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_inductor_computes_the_same(self):
        self.compare_compiled("inductor")


class ModelTesterMixin(
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelDtypeTesterMixin,
    ModelTrainingTesterMixin,
    ModelCompileTesterMixin,
):
    """All of these tests."""
