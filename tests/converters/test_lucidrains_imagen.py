"""The U-Nets of imagen-pytorch: the original's predictions, loss and guided samples, its files, refusals."""

import pytest
import torch
from torch.nn import functional as F
from transformers import T5Config, T5EncoderModel

from diffusers_ext.converters import convert_checkpoint, convert_imagen_unet, convert_imagen_video_unet
from diffusers_ext.converters.lucidrains_imagen.presets import PRESETS
from diffusers_ext.converters.lucidrains_imagen.unet import imagen_scheduler
from diffusers_ext.converters.state_dicts import part
from diffusers_ext.models import ImagenUNet, ImagenVideoUNet
from diffusers_ext.models.imagen_conditions import get_log_snr
from diffusers_ext.pipelines import TextToImagePixelPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import Case, assert_near, assert_refused, load_case
from tests.pipelines.tiny_text import tiny_tokenizer


STEPS = 6
SMALL_TIME = 0.2  # of the noise in small images, on the original's linear schedule


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("imagen_pytorch", "cascade")


def convert(case: Case, stage: int, **options) -> ImagenUNet:
    return convert_imagen_unet(part(case.weights, f"unets.{stage}."), **case.config["unets"][stage], **options)


def told(case: Case, stage: int) -> dict[str, torch.Tensor]:
    """What the network of a stage is told beside images."""
    texts = {"encoder_hidden_states": case.inputs["text_embeds"], "encoder_attention_mask": case.inputs["text_mask"]}
    if stage == 0:
        return texts
    log_snr = get_log_snr(torch.tensor([SMALL_TIME - 1]), "linear", 1)
    return {**texts, "class_labels": 1000 * (-log_snr).sigmoid().sqrt().expand(2)}


def without_text(conditions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**conditions, "encoder_attention_mask": torch.zeros_like(conditions["encoder_attention_mask"])}


@torch.no_grad()
def test_predictions(case):
    for stage, small in enumerate((case.inputs["x_0"][:, :0], case.inputs["lowres_1"])):
        unet, conditions = convert(case, stage), told(case, stage)
        x, log_snr = torch.cat([case.inputs[f"x_{stage}"], small], dim=1), case.outputs[f"log_snr_{stage}"]
        assert_near(unet(x, log_snr, **conditions).sample, case.outputs[f"output_{stage}"])
        assert_near(unet(x, log_snr, **without_text(conditions)).sample, case.outputs[f"output_null_{stage}"])


@torch.no_grad()
def test_the_end_may_see_all_levels_and_the_first_convolution():
    case = load_case("imagen_pytorch", "combined_unet")
    unet = convert_imagen_unet(case.weights, **case.args)
    output = unet(
        case.inputs["x"],
        case.inputs["log_snr"],
        case.inputs["text_embeds"],
        encoder_attention_mask=case.inputs["text_mask"],
    )
    assert_near(output.sample, case.outputs["output"])


@torch.no_grad()
def test_loss(case):
    """With the weight of min-SNR (Hang et al. 2023), at times between those of a scheduler."""
    timesteps = case.inputs["times"] * STEPS - 1
    log_snr = get_log_snr(timesteps, "cosine", STEPS)
    torch.testing.assert_close(log_snr, case.outputs["log_snr_0"], rtol=1e-5, atol=1e-4)
    clean, noise = 2 * case.inputs["image_0"] - 1, case.inputs["loss_noise_0"]
    alpha, sigma = (level.sigmoid().sqrt().view(-1, 1, 1, 1) for level in (log_snr, -log_snr))
    unet = convert(case, 0, noise_schedule="cosine", timesteps=STEPS)
    predicted = unet(alpha * clean + sigma * noise, timesteps, **told(case, 0)).sample
    losses = F.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3))
    loss = (losses * (5 / log_snr.exp()).clamp(max=1)).mean()
    torch.testing.assert_close(loss, case.outputs["loss_0"], rtol=1e-4, atol=0)


def sample(case: Case, stage: int, small: torch.Tensor) -> torch.Tensor:
    """Guided samples in `[0, 1]`, with the noise of the original's steps."""
    unet = convert(case, stage, noise_schedule="cosine", timesteps=STEPS)
    scheduler = imagen_scheduler("cosine", STEPS, "noise", 0.95)
    scheduler.set_timesteps(STEPS)
    conditions, scale = told(case, stage), case.config["cond_scale"]
    x, *noise = case.inputs[f"noise_{stage}"]
    for t, variance_noise in zip(scheduler.timesteps, noise, strict=True):
        shown = torch.cat([x, small], dim=1)
        null = unet(shown, t, **without_text(conditions)).sample
        guided = null + scale * (unet(shown, t, **conditions).sample - null)
        x = scheduler.step(guided, t, x, variance_noise=variance_noise).prev_sample
    return (x + 1) / 2


@pytest.mark.slow
@torch.no_grad()
def test_samples(case):
    """Up to the noise of the original's earliest time, which its last step leaves."""
    base = sample(case, 0, case.inputs["x_0"][:, :0])
    torch.testing.assert_close(base, case.outputs["sample_0"], rtol=0, atol=2e-3)
    level = told(case, 1)["class_labels"].view(-1, 1, 1, 1) / 1000
    small = 2 * F.interpolate(case.outputs["sample_0"], scale_factor=2) - 1
    small = (1 - level**2).sqrt() * small + level * case.inputs["lowres_noise_1"]
    torch.testing.assert_close(sample(case, 1, small), case.outputs["sample_1"], rtol=0, atol=2e-3)


@torch.no_grad()
def test_films():
    case = load_case("imagen_pytorch", "video_unet3d")
    unet = convert_imagen_video_unet(case.weights, **case.args)
    texts = {"encoder_hidden_states": case.inputs["text_embeds"], "encoder_attention_mask": case.inputs["text_mask"]}
    assert_near(unet(case.inputs["x"], case.inputs["time"], **texts).sample, case.outputs["output"])
    images = unet(case.inputs["x"], case.inputs["time"], **texts, ignore_time=True).sample
    assert_near(images, case.outputs["output_ignore_time"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset, count", [("BaseUnet64", 1625742116), ("SRUnet256", 732036754), ("SRUnet1024", 721244562)]
)
def test_presets_have_the_parameters_of_the_original(preset, count):
    args = PRESETS[preset]
    is_base = preset == "BaseUnet64"
    with torch.device("meta"):
        unet = ImagenUNet(
            in_channels=3 if is_base else 6,
            block_out_channels=[args["dim"] * factor for factor in args["dim_mults"]],
            layers_per_block=args["num_resnet_blocks"],
            block_attention=args["layer_attns"],
            block_cross_attention=args["layer_cross_attns"],
            num_attention_heads=args["attn_heads"],
            encoder_hid_dim=768,  # of T5-base, the original's default
            cross_attention_dim=args["dim"],
            class_embed_type=None if is_base else "timestep",
            downsample_first=args["memory_efficient"],
        )
    assert sum(parameter.numel() for parameter in unet.parameters()) == count


@pytest.fixture(scope="module")
def trainer_file(case, tmp_path_factory):
    """With other weights beside the averages."""
    averages = {f"{key[6]}.ema_model{key[7:]}": tensor for key, tensor in case.weights.items()}
    others = {"0.step": torch.tensor(3), **{key[6:]: 0 * tensor for key, tensor in case.weights.items()}}
    file = tmp_path_factory.mktemp("trainer") / "imagen.pt"
    torch.save({"model": case.weights, "ema": {**averages, **others}}, file)
    return file


def test_a_file_of_the_trainer_becomes_a_pipeline(trainer_file, tmp_path):
    written = convert_checkpoint(trainer_file, tmp_path / "base", "imagen", timesteps=4, unet_number=1)
    assumed = "noise_schedule=cosine, pred_objective=noise, dynamic_thresholding_percentile=0.95"
    assert written.endswith(f"assuming {assumed}")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    t5 = T5Config(vocab_size=len(tokenizer), d_model=20, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    pipe = TextToImagePixelPipeline(
        unet=ImagenUNet.from_pretrained(tmp_path / "base" / "unet"),
        scheduler=ExactDDPMScheduler.from_pretrained(tmp_path / "base" / "scheduler"),
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(t5).eval(),
        default_num_inference_steps=4,
    )
    pipe.set_progress_bar_config(disable=True)
    masks = pipe.encode_prompts(["a red seven"], [""])["encoder_attention_mask"]
    assert masks[0].any() and not masks[1].any()
    images = pipe("a red seven", guidance_scale=3.0, height=8, width=8, output_type="pt").images
    assert images.shape == (1, 3, 8, 8) and images.isfinite().all()


@pytest.mark.slow
def test_a_file_of_the_trainer_becomes_a_folder_of_each_stage(case, trainer_file, tmp_path):
    convert_checkpoint(trainer_file, tmp_path / "imagen", "imagen")
    for stage in (0, 1):
        unet = ImagenUNet.from_pretrained(tmp_path / "imagen" / f"stage_{stage + 1}" / "unet")
        expected = convert(case, stage).state_dict()
        assert all(torch.equal(weight, expected[name]) for name, weight in unet.state_dict().items())


@pytest.mark.slow
def test_a_file_of_a_network_of_films(tmp_path):
    case = load_case("imagen_pytorch", "video_unet3d")
    torch.save({"config": case.args, "state_dict": case.weights}, tmp_path / "films.pt")
    convert_checkpoint(tmp_path / "films.pt", tmp_path / "films", "imagen", noise_schedule="linear")
    unet = ImagenVideoUNet.from_pretrained(tmp_path / "films" / "unet")
    assert unet.config.noise_schedule == "linear" and unet.config.num_train_timesteps == 1000


def test_refusals(case, tmp_path):
    base, refused = part(case.weights, "unets.0."), convert_imagen_unet
    assert_refused(refused, {}, {}, "not a U-Net of imagen-pytorch")
    assert_refused(refused, base, {"attn_heads": 4}, "`attn_heads` is given as 4, but the checkpoint has 2")
    assert_refused(refused, base, {"layer_attns": True}, r"`layer_attns` is given as True, but .* \[False, True\]")
    assert_refused(refused, base, {"self_cond": True}, "`self_cond` must be False")
    assert_refused(convert_imagen_video_unet, base, {}, "not a U-Net of films")
    torch.save(case.weights, tmp_path / "imagen.pt")
    with pytest.raises(ValueError, match="`unet_number` must be one of 1, 2, but is 3"):
        convert_checkpoint(tmp_path / "imagen.pt", tmp_path / "out", "imagen", unet_number=3)
