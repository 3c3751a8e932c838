"""Text to pixels: what runs leave and sample, exact resuming, super-resolution, inpainting, and what is refused."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import T5Config, T5EncoderModel

from diffusers_ext import ImagenUNet, TextToImagePixelPipeline
from diffusers_ext.training.diffusion.denoiser_classes import build_attending_unet
from diffusers_ext.training.text_and_image.text_diffusion import TextDiffusionConfig
from diffusers_ext.training.train_text_inpainting import TextInpaintingConfig, TextInpaintingRecipe
from diffusers_ext.training.train_text_super_resolution import TextSuperResolutionConfig, TextSuperResolutionRecipe
from diffusers_ext.training.train_text_to_pixels import TextToPixelsRecipe
from tests.pipelines.tiny_text import tiny_tokenizer
from tests.training.runs import context, steps, tensors, trainer
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


SIZE = 8
OPTIONS = {
    "resolution": [SIZE],
    "unet": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
    },
    "text_config": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "caption_dropout": 0.5,
    "train_batch_size": 4,
    "max_train_steps": 3,
    "checkpointing_steps": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_inference_steps": 2,
    "num_shown_captions": 2,
}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0)}


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory):
    """Plain pictures with captions."""
    folder, lines = tmp_path_factory.mktemp("pictures"), []
    for index in range(6):
        name = list(COLOURS)[index % 2]
        Image.new("RGB", (SIZE, SIZE), COLOURS[name]).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": [f"a {name} picture", name]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield folder


def base(output_dir, **options):
    return trainer(TextToPixelsRecipe, TextDiffusionConfig(**{**OPTIONS, "output_dir": str(output_dir), **options}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "base"
    assert base(folder).train()
    return folder


def draw(pipe, prompt="a red picture", **arguments):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, generator=generator, output_type="pt", guidance_scale=2.0, **arguments).images


def test_a_run_leaves_a_pipeline_that_loads_in_both_ways(trained):
    pipe = TextToImagePixelPipeline.from_pretrained(trained)
    alone = DiffusionPipeline.from_pretrained(trained, custom_pipeline=str(trained), trust_remote_code=True)
    assert torch.equal(draw(pipe), draw(alone))
    with Image.open(trained / "samples.png") as grid:
        assert grid.width > 200
    card = (trained / "README.md").read_text()
    assert "TextToImagePixelPipeline" in card and "pipeline_tag: text-to-image" in card


def test_a_resumed_run_is_the_same(trained, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers_ext.training.loop.outputs.Outputs.write", lambda *arguments: None)
        assert base(tmp_path, max_train_steps=2).train()
        assert base(tmp_path, resume_from_checkpoint="latest").train()
    expected, found = tensors(trained, 3), tensors(tmp_path, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_step_reads_no_value(tmp_path):
    waits = waits_of_an_update(base(tmp_path))
    assert all(place.startswith("transformers: masking_utils.py") for place in waits)  # whether a mask hides anything


@pytest.mark.slow
def test_it_learns_colours(tmp_path):
    losses = [values["unet_loss"] for values in steps(base(tmp_path, train_batch_size=8), 60)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.slow
@pytest.mark.parametrize("job", ["train_text_to_pixels", "train_text_super_resolution"])
def test_two_processes_train_like_one(tmp_path, job):
    one, two = run_on_one_and_two_processes(job, OPTIONS, tmp_path)
    found = tensors(two, 3)
    for name, tensor in tensors(one, 3).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_given_text_encoder_stays_as_it_is(tmp_path):
    """Captions are cut to three tokens, and so are those of the samples."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    t5 = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2))
    for part in (t5, tokenizer):
        part.save_pretrained(tmp_path / "t5")
    job = base(tmp_path / "run", text_encoder=str(tmp_path / "t5"), text_config={}, max_caption_length=3)
    assert list(job.networks) == ["unet"]
    assert job.train()
    pipe = TextToImagePixelPipeline.from_pretrained(tmp_path / "run")
    assert type(pipe.text_encoder) is T5EncoderModel
    assert all(torch.equal(a, b) for a, b in zip(pipe.text_encoder.parameters(), t5.parameters(), strict=True))
    trained = base(tmp_path / "run", text_encoder=str(tmp_path / "t5"), text_config={}, train_text_encoder=True)
    assert list(trained.networks) == ["unet", "text_encoder"]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_learned_variance_and_dynamic_thresholding(tmp_path, prediction_type):
    options = {"prediction_type": prediction_type, "variance_type": "learned_range", "dynamic_thresholding": 0.9}
    job = base(tmp_path, **options)
    assert job.networks["unet"].config.out_channels == 6
    steps(job, 1)
    scheduler = job.recipe.sampling_scheduler()
    assert scheduler.config.thresholding and scheduler.config.sample_max_value == 100.0


def test_a_super_resolver_follows_a_base(trained, tmp_path):
    config = TextSuperResolutionConfig(**{**OPTIONS, "output_dir": str(tmp_path)})
    assert trainer(TextSuperResolutionRecipe, config).train()
    pipe = TextToImagePixelPipeline.from_pretrained(tmp_path)
    assert pipe.is_super_resolver and pipe.config.conditioning_augmentation == 0.5
    images = draw(pipe, low_res_image=Image.new("RGB", (4, 4)))
    assert images.shape == (1, 3, SIZE, SIZE)


def test_inpainting_starts_from_the_base(trained, tmp_path):
    """The new channels of the first convolution have no effect at first, and the text encoder stays as it is."""
    options = {"pretrained_model_name_or_path": str(trained), "unet": {}, "text_config": {}}
    config = TextInpaintingConfig(**{**OPTIONS, **options, "output_dir": str(tmp_path)})
    job = trainer(TextInpaintingRecipe, config)
    unet = job.networks["unet"]
    assert unet.config.in_channels == 7 and not unet.conv_in.weight[:, 3:].any()
    assert job.train()
    pipe = TextToImagePixelPipeline.from_pretrained(tmp_path)
    image, mask = torch.rand(3, SIZE, SIZE), torch.zeros(SIZE, SIZE)
    mask[:4] = 1
    filled = draw(pipe, image=image, mask_image=mask)
    torch.testing.assert_close(filled[0, :, 4:], image[:, 4:], rtol=0, atol=1e-4)
    begun = TextToImagePixelPipeline.from_pretrained(trained).text_encoder
    assert all(torch.equal(a, b) for a, b in zip(pipe.text_encoder.parameters(), begun.parameters(), strict=True))
    both = base(
        tmp_path / "both", pretrained_model_name_or_path=str(trained), unet={}, text_config={}, train_text_encoder=True
    )
    assert list(both.networks) == ["unet", "text_encoder"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"caption_dropout": 1.0}, "--caption_dropout must be in"),
        ({"vocabulary_size": 100}, "--vocabulary_size"),
        ({"train_text_encoder": True}, "--train_text_encoder is for a given --text_encoder"),
        ({"dynamic_thresholding": 1.5}, "--dynamic_thresholding must be in"),
        ({"text_encoder": "x"}, "--text_config is for a new text encoder"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TextDiffusionConfig(**{**OPTIONS, **options})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"caption_column": "missing"}, "no caption column 'missing'"),
        ({"text_encoder": "./nowhere", "text_config": {}}, "--text_encoder: there is no tokenizer in ./nowhere"),
        ({"pretrained_model_name_or_path": "./nowhere", "unet": {}, "text_config": {}}, "./nowhere is no pipeline"),
    ],
)
def test_missing_things_are_named(tmp_path, options, message):
    config = TextDiffusionConfig(**{**OPTIONS, "output_dir": str(tmp_path), **options})
    with pytest.raises((ValueError, OSError), match=message):
        TextToPixelsRecipe(config, context())


def test_options_of_the_other_recipes():
    with pytest.raises(ValueError, match="--resolution must be a multiple of --factor 3"):
        TextSuperResolutionConfig(**OPTIONS, factor=3)
    with pytest.raises(ValueError, match="--conditioning_augmentation must be in"):
        TextSuperResolutionConfig(**OPTIONS, conditioning_augmentation=1.0)
    with pytest.raises(ValueError, match="give --pretrained_model_name_or_path"):
        TextInpaintingConfig(**OPTIONS)


def test_blocks_that_attend_already_keep_their_names():
    """The blocks upwards are those of the way down, where only these are given."""
    blocks = {"block_out_channels": [8, 8], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}
    sizes = {"norm_num_groups": 4, "attention_head_dim": 2, "layers_per_block": 1, "cross_attention_dim": 8}
    unet = build_attending_unet(size=(8, 8), in_channels=3, out_channels=3, arguments={**blocks, **sizes}, usual={})
    assert list(unet.config.up_block_types) == ["CrossAttnUpBlock2D", "UpBlock2D"]


IMAGEN = {"block_out_channels": [8, 8], "num_attention_heads": 2, "attention_head_dim": 4, "num_text_latents": 2}


@pytest.mark.slow
@pytest.mark.parametrize("job", ["base", "super_resolution"])
def test_the_network_of_imagen(tmp_path, job):
    options = {**OPTIONS, "denoiser": "ImagenUNet", "unet": {**IMAGEN, "layers_per_block": 1}}
    if job == "base":
        run, shown = base(tmp_path, **options), {}
    else:
        config = TextSuperResolutionConfig(**{**options, "output_dir": str(tmp_path)})
        run, shown = trainer(TextSuperResolutionRecipe, config), {"low_res_image": Image.new("RGB", (4, 4))}
    begun = {name: weight.clone() for name, weight in run.networks["unet"].named_parameters()}
    assert run.train()
    pipe = TextToImagePixelPipeline.from_pretrained(tmp_path)
    assert type(pipe.unet) is ImagenUNet and pipe.unet.config.max_text_length == pipe.tokenizer.model_max_length
    trained = dict(pipe.unet.named_parameters())
    assert not torch.equal(trained["conditioner.text.null_embedding"], begun["conditioner.text.null_embedding"])
    alone = DiffusionPipeline.from_pretrained(tmp_path, custom_pipeline=str(tmp_path), trust_remote_code=True)
    assert torch.equal(draw(pipe, **shown), draw(alone, **shown))
