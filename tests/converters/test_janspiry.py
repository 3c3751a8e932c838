"""Checkpoints of Palette and SR3: the networks, the sampler's trajectories, and what is refused."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from diffusers_ext.converters import convert_checkpoint, convert_palette, convert_sr3
from diffusers_ext.converters.__main__ import main
from diffusers_ext.converters.janspiry.checkpoint_parts import PALETTE_BUFFERS, SR3_BUFFERS, ancestral_scheduler
from diffusers_ext.pipelines import ClassConditionalPipeline, PalettePipeline, pipeline_palette
from diffusers_ext.schedulers import ExactDDPMScheduler, scheduling_gaussian_diffusion
from tests.converters.cases import Case, load_case
from tests.converters.originals import palette_shapes, random, sr3_shapes


SR3_CASES = ("sr3_conditional", "ddpm_conditional")
SMALL = {"image_size": 16, "in_channel": 6, "out_channel": 3, "inner_channel": 32, "res_blocks": 2, "attn_res": [8]}
SCHEDULE = {"schedule": "linear", "n_timestep": 5, "linear_start": 1e-4, "linear_end": 0.5}


def palette_case() -> Case:
    return load_case("palette", "unet_and_samplers")


def palette_args(case: Case) -> dict:
    return {"module_name": case.config["module_name"], **case.config["unet"]}


def sr3_args(case: Case) -> dict:
    return {"which_model_G": case.config["which_model_G"], **case.config["unet"], **case.config["diffusion"]}


def sr3_weights(channel_mults: tuple[int, ...] = (1, 2), kind: str = "sr3", **changes) -> dict:
    return random(sr3_shapes(SMALL | changes, channel_mults, kind))


def refusal(convert, *args, **options) -> str:
    with pytest.raises(ValueError) as error:
        convert(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def convert_to(folder, family: str, weights: dict, **options) -> str:
    torch.save(weights, folder / "model.pth")
    return convert_checkpoint(folder / "model.pth", folder / "out", family, **options)


def single(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def load(folder) -> PalettePipeline:
    pipe = PalettePipeline.from_pretrained(folder / "out")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def replay(monkeypatch, pipe, noises, **inputs) -> torch.Tensor:
    """The latents of all steps, with the recorded noise in place of random noise."""
    noises, trajectory = list(noises), []
    for module in (pipeline_palette, scheduling_gaussian_diffusion):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: noises.pop(0))

    def record(pipe, step, timestep, callback_kwargs):
        trajectory.append(callback_kwargs["latents"])

    pipe(**inputs, output_type="pt", callback_on_step_end=record)
    assert noises == []
    return torch.stack(trajectory)


class TestNetworks:
    @torch.no_grad()
    def test_palette(self):
        case = palette_case()
        network = convert_palette(case.weights, **palette_args(case))
        assert type(network) is UNet2DModel
        sample = network(case.inputs["x"], case.inputs["gammas"].flatten()).sample
        torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)

    @torch.no_grad()
    @pytest.mark.parametrize("name", SR3_CASES)
    def test_sr3(self, name):
        case = load_case("sr3", name)
        network = convert_sr3(case.weights, **sr3_args(case))
        assert type(network) is UNet2DModel
        levels = case.inputs["noise_level"].flatten() if name == "sr3_conditional" else case.inputs["timesteps"]
        sample = network(case.inputs["x"], levels).sample
        torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_palette_with_the_network_of_sr3(self):
        case = load_case("sr3", "sr3_conditional")
        weights = {key: tensor for key, tensor in case.weights.items() if key not in SR3_BUFFERS}
        args = {**case.config["unet"], "module_name": "sr3", "image_size": 8}
        args["channel_mults"] = args.pop("channel_multiplier")
        network = convert_palette(weights | dict.fromkeys(PALETTE_BUFFERS, torch.zeros(10)), **args)
        sample = network(case.inputs["x"], case.inputs["noise_level"].flatten()).sample
        torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)

    def test_only_what_no_tensor_shows_is_needed(self):
        case = palette_case()
        network = convert_palette(case.weights, **palette_args(case))
        unseen = {"num_head_channels": 16, "image_size": 8, "dropout": 0.2}
        assert dict(convert_palette(case.weights, **unseen).config) == dict(network.config)
        for name in SR3_CASES:
            case = load_case("sr3", name)
            network = convert_sr3(case.weights, **sr3_args(case))
            unseen = {"norm_groups": 8, "image_size": 8, "dropout": case.config["unet"]["dropout"]}
            assert dict(convert_sr3(case.weights, **unseen).config) == dict(network.config)

    def test_tensors_without_prefix(self):
        case = load_case("sr3", "sr3_conditional")
        prefix = "denoise_fn."
        bare = {key.removeprefix(prefix): tensor for key, tensor in case.weights.items() if key.startswith(prefix)}
        network, expected = convert_sr3(bare, norm_groups=8), convert_sr3(case.weights, norm_groups=8)
        assert all(torch.equal(p, expected.get_parameter(name)) for name, p in network.named_parameters())

    @pytest.mark.parametrize("kind, res_blocks", [("sr3", 1), ("ddpm", 3)])
    @pytest.mark.parametrize("attn_res", [[], [16], [4], [16, 8, 4]])
    def test_every_layout_is_read(self, kind, attn_res, res_blocks):
        changes = {"attn_res": attn_res, "res_blocks": res_blocks}
        args = {"channel_multiplier": [1, 1, 2], "which_model_G": kind, **SMALL, **changes}
        weights = sr3_weights((1, 1, 2), kind, **changes)
        network = convert_sr3(weights, **args)
        assert dict(convert_sr3(weights, image_size=16).config) == dict(network.config)
        assert network(torch.randn(1, 6, 16, 16), 0.5).sample.shape == (1, 3, 16, 16)

    def test_the_checkpoint_stays_as_it_was(self):
        weights = sr3_weights()
        before = {key: tensor.clone() for key, tensor in weights.items()}
        network = convert_sr3(weights)
        assert not network.training
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert all(torch.equal(weights[key], before[key]) for key in before)


class TestTrajectories:
    """From the file to the folder to the pipeline, with the original's sampler and its noise."""

    @pytest.fixture
    def palette(self, tmp_path):
        case = palette_case()
        schedule = case.config["beta_schedule"]["test"]
        written = convert_to(tmp_path, "palette", case.weights, **palette_args(case), **schedule)
        assert "PalettePipeline in" in written and "the noise schedule" not in written
        pipe = load(tmp_path)
        torch.testing.assert_close(pipe.scheduler.alphas_cumprod, case.outputs["test_gammas"])
        return pipe, case

    def test_inpainting(self, monkeypatch, palette):
        pipe, case = palette
        y_0, mask, y_T, y_cond, noise = (
            case.inputs[f"inpainting.{name}"] for name in ("y_0", "mask", "y_T", "y_cond", "noise")
        )
        inputs = {"image": y_0 / 2 + 0.5, "mask_image": mask, "latents": y_T}
        trajectory = replay(monkeypatch, pipe, [y_cond, *noise], **inputs)
        torch.testing.assert_close(trajectory, case.outputs["inpainting.trajectory"], rtol=0, atol=1e-4)

    def test_colorization(self, monkeypatch, palette):
        pipe, case = palette
        y_T, y_cond, noise = (case.inputs[f"colorization.{name}"] for name in ("y_T", "y_cond", "noise"))
        # the recorded condition is not gray, so the task is one that does not change it
        inputs = {"image": y_cond / 2 + 0.5, "task": "translation", "latents": y_T}
        trajectory = replay(monkeypatch, pipe, noise, **inputs)
        torch.testing.assert_close(trajectory, case.outputs["colorization.trajectory"], rtol=0, atol=1e-4)

    @pytest.mark.parametrize("from_file", [True, False], ids=["schedule of the file", "schedule of the options"])
    @pytest.mark.parametrize("name", SR3_CASES)
    def test_super_resolution(self, monkeypatch, tmp_path, name, from_file):
        case = load_case("sr3", name)
        schedule = {} if from_file else case.config["beta_schedule"]
        written = convert_to(tmp_path, "sr3", case.weights, **sr3_args(case), l_resolution=2, **schedule)
        assert ("assuming the noise schedule of the training" in written) == from_file
        pipe = load(tmp_path)
        assert list(pipe.config.tasks) == ["super_resolution"] and pipe.config.default_scale_factor == 4
        assert pipe.config.noise_conditioning == {"sr3_conditional": "sqrt_gamma"}.get(name, "timestep")
        torch.testing.assert_close(pipe.scheduler.alphas_cumprod, case.outputs["alphas_cumprod"])

        # The recorded condition exceeds [-1, 1], unlike images.
        image = case.inputs["condition"] / 2 + 0.5
        monkeypatch.setattr(pipe, "prepare_images", lambda *args: ("super_resolution", image, None))
        noise = case.inputs["noise"][:9]  # the original's last one is multiplied by 0
        trajectory = replay(monkeypatch, pipe, noise, image=image, latents=case.inputs["x_T"])
        torch.testing.assert_close(trajectory, case.outputs["trajectory"], rtol=0, atol=1e-4)


class TestFolders:
    def test_the_schedule_of_training_is_read_off_palettes_buffers(self, tmp_path):
        """Even if the gammas are too close to 1 for float32, as with the published betas of 1e-6 to 0.01."""
        betas = np.linspace(1e-6, 0.01, 2000)
        gammas = np.cumprod(1 - betas)
        case = palette_case()
        weights = case.weights | {"gammas": single(gammas), "sqrt_recipm1_gammas": single((1 / gammas - 1) ** 0.5)}
        written = convert_to(tmp_path, "palette", weights, **palette_args(case))
        assert written.endswith("assuming use_new_attention_order=False, the noise schedule of the training")
        pipe = load(tmp_path)
        assert pipe.config.default_num_inference_steps == 2000
        np.testing.assert_allclose(pipe.scheduler.betas.numpy(), betas, rtol=1e-4)
        assert torch.equal(pipe.scheduler.alphas_cumprod, single(gammas))

    @pytest.mark.parametrize(
        "betas", [np.linspace(1e-6, 0.01, 2000), np.linspace(1e-4, 0.5, 50), np.linspace(0.001, 0.3, 1000) ** 2]
    )
    def test_alpha_bar_is_exactly_that_of_the_file(self, betas):
        """It can't be rebuilt from the betas alone, whose rounding adds up."""
        alpha_bar = np.cumprod(1 - betas)
        stored = {"betas": single(betas), "alphas_cumprod": single(alpha_bar)}
        scheduler = ancestral_scheduler(stored, {})
        assert torch.equal(scheduler.alphas_cumprod, single(alpha_bar))
        np.testing.assert_allclose(scheduler.betas.numpy(), betas, rtol=2e-5)
        stored = {"gammas": single(alpha_bar), "sqrt_recipm1_gammas": single((1 / alpha_bar - 1) ** 0.5)}
        scheduler = ancestral_scheduler(stored, {})
        assert torch.equal(scheduler.alphas_cumprod, single(alpha_bar))
        np.testing.assert_allclose(scheduler.betas.numpy(), betas, rtol=1e-4)

    def test_schedules_that_contradict_themselves_are_refused(self):
        betas = np.linspace(1e-4, 0.5, 5)
        for other in (np.cumprod(1 - betas)[:4], np.cumprod(1 - betas) ** 1.01, np.full(5, np.nan)):
            message = refusal(ancestral_scheduler, {"betas": single(betas), "alphas_cumprod": single(other)}, {})
            assert "its betas do not multiply to its alphas_cumprod. Give `schedule`, " in message

    def test_schedules(self):
        steps = np.arange(6) / 5
        cosine = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
        expected = {
            "linear": np.linspace(1e-4, 0.5, 5),
            "quad": np.linspace(0.01, 0.5**0.5, 5) ** 2,
            "cosine": np.minimum(1 - cosine[1:] / cosine[:-1], 0.999),
        }
        for schedule, betas in expected.items():
            scheduler = ancestral_scheduler({}, {**SCHEDULE, "schedule": schedule})
            assert scheduler.config.variance_type == "fixed_small"
            np.testing.assert_allclose(scheduler.betas.numpy(), betas, rtol=1e-6)
        cosine = ancestral_scheduler({}, {"schedule": "cosine", "n_timestep": 5})
        assert torch.equal(cosine.betas, scheduler.betas)

    @pytest.mark.parametrize("module", ["guided_diffusion", "sr3"])
    def test_a_palette_pipeline_of_the_command_runs(self, tmp_path, capsys, module):
        args = SMALL | {"channel_mults": [1, 2]}
        shapes = palette_shapes(args) if module == "guided_diffusion" else sr3_shapes(args, [1, 2])
        torch.save(random(shapes), tmp_path / "200_Network.pth")
        options = ["image_size=16", f"module_name={module}", "task=inpainting"]
        options += [f"{name}={value}" for name, value in SCHEDULE.items()]
        options += ["num_heads=2"] if module == "guided_diffusion" else []
        command = [str(tmp_path / "200_Network.pth"), str(tmp_path / "out"), "--family", "palette", "--option"]
        main([*command, *options])
        assumed = {"guided_diffusion": "use_new_attention_order=False", "sr3": "norm_groups=32"}[module]
        assert capsys.readouterr().out.strip().endswith(f"assuming {assumed}.")

        pipe = load(tmp_path)
        assert list(pipe.config.tasks) == ["inpainting"] and pipe.config.noise_conditioning == "gamma"
        assert pipe.unet.config.sample_size == 16 and type(pipe.scheduler) is ExactDDPMScheduler
        image = torch.rand(1, 3, 16, 16)
        result = pipe(image, mask_image=(4, 4, 12, 12), output_type="pt").images
        assert pipe.num_timesteps == 5
        assert torch.equal(result[..., :4], image[..., :4]) and not torch.equal(result, image)

    def test_tensors_without_prefix(self, tmp_path):
        for kind, noise_conditioning in (("sr3", "sqrt_gamma"), ("ddpm", "timestep")):
            (tmp_path / kind).mkdir()
            weights = {key.removeprefix("denoise_fn."): tensor for key, tensor in sr3_weights(kind=kind).items()}
            convert_to(tmp_path / kind, "sr3", weights, image_size=16, **SCHEDULE)
            assert load(tmp_path / kind).config.noise_conditioning == noise_conditioning

    def test_images_of_nothing(self, tmp_path):
        options = {"image_size": 16, "conditional": False, **SCHEDULE}
        (tmp_path / "ddpm").mkdir()
        convert_to(tmp_path / "ddpm", "sr3", sr3_weights(kind="ddpm", in_channel=3), **options)
        pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "ddpm" / "out")
        pipe.set_progress_bar_config(disable=True)
        assert pipe(output_type="pt").images.shape == (1, 3, 16, 16)
        assert pipe.config.default_num_inference_steps == 5

        written = convert_to(tmp_path, "sr3", sr3_weights(in_channel=3), **options)
        assert "UNet2DModel in" in written and "ExactDDPMScheduler in" in written
        assert UNet2DModel.from_pretrained(tmp_path / "out" / "unet").config.in_channels == 3


class TestRefusals:
    @pytest.mark.parametrize("kind", ["sr3", "ddpm"])
    def test_each_missing_or_misfitting_key_is_named(self, kind):
        weights = sr3_weights(kind=kind)
        embedding = {"sr3": "noise_level_mlp", "ddpm": "time_mlp"}[kind]
        keys = [key for key in sorted(weights) if not key.endswith("inv_freq")]
        keys = [*keys[::15], f"denoise_fn.{embedding}.3.weight", "denoise_fn.mid.0.attn.qkv.weight"]
        for key in keys:
            name = key.removeprefix("denoise_fn.")
            message = refusal(convert_sr3, {k: tensor for k, tensor in weights.items() if k != key})
            assert f"1 missing: {name})" in message
            wrong = torch.zeros(5, *weights[key].shape[1:])
            if not name.startswith("final_conv.block.3"):  # whose two tensors disagree, and either may be right
                message = refusal(convert_sr3, weights | {key: wrong})
                shape = str(tuple(weights[key].shape)).removesuffix(", 1, 1)").removesuffix(")")  # or a linear layer
                assert f"1 of another shape: {name} {tuple(wrong.shape)} instead of {shape}" in message

    @pytest.mark.parametrize("layer", ["denoise_fn.cond_embed.0.weight", "denoise_fn.input_blocks.3.1.qkv.bias"])
    def test_each_missing_key_of_palette_is_named(self, layer):
        case = palette_case()
        weights = {key: tensor for key, tensor in case.weights.items() if key != layer}
        message = refusal(convert_palette, weights, num_head_channels=16)
        assert f"1 missing: {layer.removeprefix('denoise_fn.')})" in message

    def test_unknown_tensors_are_listed(self):
        case = palette_case()
        weights = case.weights | {"discriminator.weight": torch.ones(1), "denoise_fn.extra": torch.ones(1)}
        message = refusal(convert_palette, weights, num_head_channels=16)
        assert "2 unknown: extra, discriminator.weight" in message

    def test_one_family_for_the_other(self):
        palette, sr3, ddpm = palette_case(), load_case("sr3", "sr3_conditional"), load_case("sr3", "ddpm_conditional")
        assert "not a U-Net of SR3" in refusal(convert_sr3, palette.weights)
        assert "9 unknown: alphas_cumprod, " in refusal(convert_palette, sr3.weights, norm_groups=8)
        assert "one of SR3's repository" in refusal(convert_palette, ddpm.weights, norm_groups=8)
        weights = sr3_weights() | dict.fromkeys(PALETTE_BUFFERS, torch.zeros(5))
        assert "3 unknown: gammas, sqrt_recip_gammas, sqrt_recipm1_gammas" in refusal(convert_sr3, weights)
        for weights in (
            {},
            {"conv.weight": torch.ones(2)},
            {f"denoise_fn.{name}.0.bias": torch.ones(2) for name in "ab"},
        ):
            assert "not a U-Net" in refusal(convert_sr3, weights)
            assert "not a U-Net" in refusal(convert_palette, weights)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"which_model_G": "ddpm"}, "`which_model_G` is given as ddpm, but the checkpoint has sr3"),
            ({"in_channel": 3}, "`in_channel` is given as 3, but the checkpoint has 6"),
            ({"conditional": False}, "`conditional` is given as False, but the checkpoint has True"),
            ({"channel_multiplier": [1, 1]}, r"`channel_multiplier` is given as \[1, 1\].* \[1.0, 2.0\]"),
            ({"attn_res": [4], "image_size": 16}, r"`attn_res` is given as \[4\], but the checkpoint has \[8\]"),
            ({"res_blocks": 1}, "`res_blocks` is given as 1, but the checkpoint has 2"),
            ({"res_blocks": "two"}, "`res_blocks` must be a positive integer"),
            ({"norm_groups": 24}, "`norm_groups` must divide the 32 channels"),
            ({"norm_groups": 0}, "`norm_groups` must be a positive integer"),
            ({"image_size": 15}, "`image_size` must be a multiple of 2, because .* but is 15"),
            ({"dropout": "foo"}, "`dropout` must be a number from 0 to 1, but is 'foo'"),
            ({"num_heads": 4}, "no argument 'num_heads'"),
        ],
    )
    def test_arguments_of_sr3_at_odds(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            convert_sr3(sr3_weights(), **arguments)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({}, "give `num_heads` or"),
            ({"module_name": "sr3"}, "`module_name` is given as sr3, but the checkpoint has guided_diffusion"),
            ({"in_channel": 4}, "`in_channel` is given as 4, but the checkpoint has 6"),
            ({"inner_channel": 64}, "`inner_channel` is given as 64, but the checkpoint has 32"),
            ({"attn_res": [1]}, r"`attn_res` is given as \[1\], but the checkpoint has \[2\]"),
            ({"channel_mults": [1, 2]}, r"`channel_mults` is given as \[1, 2\], but the checkpoint has \[1.0, 1.0\]"),
            ({"model_channels": 32}, "no argument 'model_channels'"),
        ],
    )
    def test_arguments_of_palette_at_odds(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            convert_palette(palette_case().weights, **arguments)

    def test_a_first_level_of_another_width(self):
        assert "`channel_multiplier` must begin with 1" in refusal(convert_sr3, sr3_weights((2, 2)))

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"n_timestep": 5}, "but `schedule` is not given"),
            ({**SCHEDULE, "schedule": "jsd"}, "`schedule` must be 'linear', 'quad' or 'cosine'"),
            ({**SCHEDULE, "schedule": ["linear"]}, "`schedule` must be 'linear', 'quad' or 'cosine'"),
            ({**SCHEDULE, "n_timestep": 0}, "`n_timestep` must be a positive integer"),
            ({**SCHEDULE, "linear_end": "much"}, "`linear_end` must be a positive number"),
            ({**SCHEDULE, "linear_end": 2}, "Betas must lie in"),
            ({**SCHEDULE, "task": "inpaintng"}, "`task` must be one of colorization"),
            ({**SCHEDULE, "l_resolution": 32}, "`l_resolution` must be an integer from 1 to 16"),
            ({"l_resolution": 2}, "does not show its noise schedule"),
            ({**SCHEDULE, "image_size": "large"}, "`image_size` must be a positive integer"),
        ],
    )
    def test_bad_options_leave_nothing_behind(self, tmp_path, options, message):
        assert message in refusal(convert_to, tmp_path, "sr3", sr3_weights(), **{"image_size": 16, **options})
        assert not (tmp_path / "out").exists()

    def test_the_size_of_images_is_asked_for(self, tmp_path):
        for options in (SCHEDULE, {**SCHEDULE, "l_resolution": 4}):
            assert "`image_size`" in refusal(convert_to, tmp_path, "sr3", sr3_weights(), **options)

    def test_a_state_of_the_optimizer_is_no_checkpoint(self, tmp_path):
        message = refusal(convert_to, tmp_path, "sr3", {"epoch": 3, "iter": 9, "optimizer": {}, "scheduler": None})
        assert "does not hold a state dict" in message
