import pytest
import torch
from diffusers import ClassifierFreeGuidance, DDIMScheduler
from PIL import Image

from diffusers_ext.models import SpatialRescaler
from diffusers_ext.pipelines.latent_conditioning import encode_shown
from diffusers_ext.pipelines.latent_space import LatentSpace
from diffusers_ext.pipelines.masks import blend_hidden
from diffusers_ext.pipelines.pipeline_palette import PalettePipeline
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
)
from tests.pipelines.tiny_palette import draw, make_images, note_calls
from tests.tiny_autoencoders import tiny_vae, tiny_vq_model
from tests.tiny_unet import tiny_unet


# Input channels of the network, beside the 4 of the noisy latents.
ENCODINGS = {"latents": 4, "pixels": 3 * 2 * 2, "resized": 3}


def make_unet(in_channels: int, **changes):
    return tiny_unet(in_channels=in_channels, out_channels=4, **changes)


def make_pipeline(encoding: str = "latents", has_mask: bool = True, **changes) -> PalettePipeline:
    components = {
        "unet": make_unet(ENCODINGS[encoding] + has_mask + 4),
        "scheduler": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        "vae": tiny_vae(),
        "conditioning_encoding": encoding,
        "conditioning_mask": has_mask if encoding == "resized" else None,
        "conditioning_fill": "black",
        "default_num_inference_steps": 2,
    }
    pipe = PalettePipeline(**{**components, **changes})
    pipe.set_progress_bar_config(disable=True)
    return pipe


class InpaintingConfig(PipelineTesterConfig):
    pipeline_class = PalettePipeline
    output_shape = (3, 3, 16, 16)
    latents_shape = (3, 4, 8, 8)
    batch_params = ("image",)
    num_images_param = "num_images_per_input"

    def get_components(self):
        return {
            "unet": make_unet(9),
            "scheduler": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
            "guider": ClassifierFreeGuidance(guidance_scale=2.0),
            "vae": tiny_vae(),
            "conditioning_fill": "smooth",
            "default_num_inference_steps": 2,
        }

    def get_inputs(self):
        return {"image": list(make_images(3, 16, 16)), "mask_image": (4, 4, 12, 12)}


class TestOutput(InpaintingConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(InpaintingConfig, PipelineSaveLoadTesterMixin):
    def test_optional_components_may_be_missing(self):
        """Without its autoencoder, the network is one for other images."""


class TestRandomness(InpaintingConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(InpaintingConfig, PipelineBatchTesterMixin):
    pass


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_network_sees_the_encoded_image_the_mask_and_the_latents(encoding):
    pipe = make_pipeline(encoding)
    calls, image = note_calls(pipe), make_images(1, 16, 16)
    draw(pipe, image, mask_image=(0, 0, 8, 16), num_inference_steps=1)
    ((seen, _),) = calls
    hidden = torch.zeros(1, 1, 16, 16)
    hidden[..., :8] = 1
    shown = (image * 2 - 1).masked_fill(hidden > 0, -1)
    with torch.no_grad():
        expected = {
            "latents": lambda: LatentSpace(pipe.vae).encode(shown),
            "pixels": lambda: torch.nn.functional.pixel_unshuffle(shown, 2),
            "resized": lambda: torch.nn.functional.interpolate(shown, (8, 8), mode="bicubic", antialias=True),
        }[encoding]()
    torch.testing.assert_close(seen[:, : ENCODINGS[encoding]], expected)
    mask = seen[:, ENCODINGS[encoding]]
    assert (mask[..., :4] == 1).all() and (mask[..., 4:] == -1).all()
    assert seen.shape == (1, ENCODINGS[encoding] + 5, 8, 8)


def test_visible_pixels_are_kept_to_the_bit_unless_a_seam_is_asked_for():
    pipe, image = make_pipeline(), make_images(1, 16, 16)
    filled = draw(pipe, image, mask_image=(4, 4, 12, 12))
    outside = torch.ones(1, 3, 16, 16, dtype=torch.bool)
    outside[..., 4:12, 4:12] = False
    assert torch.equal(filled[outside], image[outside]) and not torch.equal(filled, image)

    seamless = draw(pipe, image, mask_image=(4, 4, 12, 12), seam_width=2)
    assert torch.equal(seamless[..., 4:12, 4:12], filled[..., 4:12, 4:12])
    assert torch.equal(seamless[..., :2, :], image[..., :2, :])
    assert not torch.equal(seamless[..., 3, 4:12], image[..., 3, 4:12])
    with pytest.raises(ValueError, match="`seam_width` must be a number of pixels, but is -1"):
        draw(pipe, image, mask_image=(4, 4, 12, 12), seam_width=-1)


def test_a_seam_fades_with_the_distance():
    made, images = torch.ones(1, 1, 1, 7), torch.zeros(1, 1, 1, 7)
    hidden = torch.tensor([True, False, False, False, False, False, False])[None, None, None]
    blended = blend_hidden(made, images, hidden, 3)
    torch.testing.assert_close(blended.flatten(), torch.tensor([1, 0.75, 0.5, 0.25, 0, 0, 0]))


def test_every_task_works_in_latents():
    pipe = make_pipeline(tasks=["inpainting", "uncropping", "colorization", "super_resolution"])
    image = make_images(1, 16, 16)
    assert draw(pipe, image, task="colorization").shape == (1, 3, 16, 16)
    assert draw(pipe, image, padding=(4, 0, 4, 8)).shape == (1, 3, 24, 24)
    assert draw(pipe, image, task="super_resolution", scale_factor=2).shape == (1, 3, 32, 32)
    # Sides that neither the autoencoder nor the network can halve.
    assert draw(pipe, make_images(1, 15, 18), task="colorization").shape == (1, 3, 15, 18)
    first_guess = draw(pipe, image, task="colorization", strength=0.5)
    assert first_guess.shape == image.shape and not torch.equal(first_guess, draw(pipe, image, task="colorization"))
    wide = pipe.panorama(image, width=24, output_type="pt", generator=torch.Generator().manual_seed(0)).images
    assert wide.shape == (1, 3, 16, 24)


def test_tiles_are_given_in_pixels():
    pipe = make_pipeline()
    calls, image = note_calls(pipe), make_images(1, 16, 40)
    assert draw(pipe, image, task="colorization", tile_size=16, num_inference_steps=1).shape == (1, 3, 16, 40)
    assert calls[0][0].shape[2:] == (8, 8)
    # Also where neither the autoencoder nor the network can halve the sides.
    image = make_images(1, 17, 41)
    filled = draw(pipe, image, mask_image=(4, 4, 12, 12), tile_size=16)
    assert filled.shape == image.shape and torch.equal(filled[..., :4], image[..., :4])
    with pytest.raises(ValueError, match="`tile_size` must be a multiple of 4"):
        draw(pipe, image, task="colorization", tile_size=18)


def test_latents_of_a_vq_model_are_quantized_at_the_end():
    pipe = make_pipeline(vae=tiny_vq_model(), has_mask=False)
    assert draw(pipe, make_images(1, 16, 16), task="colorization").isfinite().all()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"unet": make_unet(11)}, "`unet` has 11 input channels, but latents of 4 channels of `vae`"),
        ({"unet": make_unet(4)}, "`unet` has 4 input channels"),
        ({"conditioning_encoding": "words"}, "`conditioning_encoding` must be"),
        ({"source_noise": 0.3}, "`source_noise` must be left out with a `vae`"),
        ({"vae": make_unet(9)}, "`vae` must encode images to maps of latents"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error):
    with pytest.raises(ValueError, match=error):
        make_pipeline(**changes)


def test_pixels_are_shown_as_they_are():
    from diffusers_ext.pipelines.latent_space import PixelSpace

    image = make_images(1)
    assert encode_shown(PixelSpace(3), "latents", image, None, has_mask=False) is image


class SemanticSynthesisConfig(PipelineTesterConfig):
    """Label maps of five labels through a network of their own."""

    pipeline_class = PalettePipeline
    output_shape = (3, 3, 16, 16)
    latents_shape = (3, 4, 8, 8)
    batch_params = ("image",)
    num_images_param = "num_images_per_input"

    def get_components(self):
        torch.manual_seed(0)
        return {
            "unet": make_unet(2 + 4),
            "scheduler": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
            "guider": ClassifierFreeGuidance(guidance_scale=2.0),
            "vae": tiny_vae(),
            "conditioner": SpatialRescaler(in_channels=5, out_channels=2, num_stages=1),
            "conditioning_encoding": "labels",
            "tasks": ["translation"],
            "default_num_inference_steps": 2,
        }

    def get_inputs(self):
        return {"image": list(make_labels(3))}


def make_labels(count: int) -> torch.Tensor:
    return torch.randint(5, (count, 16, 16), generator=torch.Generator().manual_seed(0))


class TestSemanticOutput(SemanticSynthesisConfig, PipelineOutputTesterMixin):
    pass


class TestSemanticSaveLoad(SemanticSynthesisConfig, PipelineSaveLoadTesterMixin):
    def test_optional_components_may_be_missing(self):
        """Without its autoencoder, or the network of its label maps, the denoiser is one for other images."""


def make_semantic_pipeline(**changes) -> PalettePipeline:
    pipe = PalettePipeline(**{**SemanticSynthesisConfig().get_components(), **changes})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_denoiser_sees_rescaled_label_maps_in_any_form():
    pipe, labels = make_semantic_pipeline(guider=None), make_labels(1)[0]
    one_hot = torch.nn.functional.one_hot(labels, 5).movedim(-1, 0).float()
    with torch.no_grad():
        expected = pipe.conditioner(one_hot[None])
    picture = Image.fromarray(labels.numpy().astype("uint8"), "L")
    coloured = picture.copy()
    coloured.putpalette(list(range(255, -1, -1)) * 3)
    for image in (labels, labels.numpy(), one_hot, picture, coloured, labels[None] / 255):
        calls = note_calls(pipe)
        draw(pipe, image, num_inference_steps=1)
        torch.testing.assert_close(calls[-1][0][:, :2], expected)
    # A map whose sides the network can't halve.
    assert draw(pipe, labels[:15, :14]).shape == (1, 3, 15, 14)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (torch.full((16, 16), 5), "`image` has the label 5, but the network knows those from 0 to 4"),
        (torch.full((16, 16), 300), "`image` must hold labels from 0 to 255, but they go from 300 to 300"),
        (torch.full((16, 16), -1), "they go from -1 to -1"),
        (make_images(1, 16, 16)[0], "must be a label map, with a number for each pixel, but has colours"),
    ],
)
def test_maps_of_unknown_labels_are_refused(image, error):
    with pytest.raises(ValueError, match=error):
        draw(make_semantic_pipeline(), image)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"conditioner": None}, "`conditioner` and `conditioning_encoding` 'labels' need each other, and a `vae`"),
        ({"conditioning_encoding": "pixels"}, "need each other"),
        (
            {"unet": make_unet(7)},
            "`unet` has 7 input channels, but latents of 4 channels of `vae` and label",
        ),
        ({"conditioning_mask": True}, "without a mask, are another number"),
    ],
)
def test_a_network_of_label_maps_that_does_not_fit_is_refused(changes, error):
    with pytest.raises(ValueError, match=error):
        make_semantic_pipeline(**changes)


def test_a_label_map_is_no_start():
    with pytest.raises(ValueError, match="`strength` must be 1, because label maps cannot be a start"):
        draw(make_semantic_pipeline(), make_labels(1), strength=0.5)
