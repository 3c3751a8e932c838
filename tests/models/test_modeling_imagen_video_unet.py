import pytest
import torch

from diffusers_ext.models.modeling_imagen_video_unet import ImagenVideoUNet
from tests.models.test_modeling_imagen_unet import ImagenTrainingMixin, ImagenUNetConfig
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class ImagenVideoUNetConfig(ModelTesterConfig):
    """A super-resolver of films of two frames."""

    model_class = ImagenVideoUNet
    output_shape = (3, 3, 2, 8, 8)

    def get_init_dict(self):
        of_images = ImagenUNetConfig().get_init_dict()
        return {name: value for name, value in of_images.items() if not name.startswith("combine")}

    def get_inputs(self):
        films = torch.randn(3, 6, 2, 8, 8, generator=torch.Generator().manual_seed(1))
        return {**ImagenUNetConfig().get_inputs(), "sample": films}


@pytest.mark.slow
class TestImagenVideoUNet(ImagenVideoUNetConfig, ImagenTrainingMixin, ModelTesterMixin):
    @torch.no_grad()
    def test_layers_along_frames_can_be_skipped(self):
        model, inputs = self.get_model(), self.get_inputs()
        expected = model(**inputs, ignore_time=True).sample
        for name, parameter in model.named_parameters():
            if "frame_" in name:
                parameter.zero_()
        torch.testing.assert_close(model(**inputs, ignore_time=True).sample, expected, rtol=0, atol=0)
        assert not torch.equal(model(**inputs).sample, expected)
