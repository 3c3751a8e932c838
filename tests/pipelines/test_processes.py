"""A pipeline knows what its network predicts, and refuses a scheduler for something else."""

import json
import shutil

import pytest
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusers_ext import CascadePipeline, ClassConditionalPipeline
from diffusers_ext.schedulers import EDMHeunScheduler, ExactDDIMScheduler, ExactDDPMScheduler
from tests.pipelines import tiny_palette
from tests.tiny_unet import tiny_unet


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 0.5}
V = {"prediction_type": "v_prediction"}


def generate(scheduler, pipe):
    """A pipeline that had another scheduler before draws an image."""
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe(num_inference_steps=2, output_type="pt").images


def make_pipeline(scheduler) -> ClassConditionalPipeline:
    return ClassConditionalPipeline(tiny_unet(0, num_class_embeds=None), scheduler)


@pytest.mark.parametrize(
    "own, other",
    [
        (DPMSolverMultistepScheduler(**FLOW), DDIMScheduler()),
        (DPMSolverMultistepScheduler(**FLOW), UniPCMultistepScheduler()),
        (FlowMatchEulerDiscreteScheduler(), DDIMScheduler(**V)),
        (FlowMatchEulerDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(num_train_timesteps=1)),
        (FlowMatchEulerDiscreteScheduler(), EDMEulerScheduler()),
        (DDIMScheduler(**V), DDIMScheduler()),
        (DDIMScheduler(), FlowMatchHeunDiscreteScheduler()),
        (DDIMScheduler(), DDIMScheduler(beta_schedule="squaredcos_cap_v2")),
        (DDIMScheduler(), DDIMScheduler(num_train_timesteps=100)),
        (EDMEulerScheduler(), EDMHeunScheduler(sigma_data=1.0)),
        (EDMEulerScheduler(), EulerDiscreteScheduler()),
    ],
)
def test_a_scheduler_for_another_process_is_refused(own, other):
    with pytest.raises(ValueError, match=rf"`scheduler` .{type(other).__name__}.*{type(own).__name__}"):
        generate(other, make_pipeline(own))


@pytest.mark.parametrize(
    "own, other",
    [
        (DPMSolverMultistepScheduler(**FLOW), FlowMatchHeunDiscreteScheduler()),
        (DPMSolverMultistepScheduler(**FLOW), UniPCMultistepScheduler(**FLOW)),
        (DDIMScheduler(**V), ExactDDIMScheduler.from_config(DDIMScheduler(**V).config)),
        (ExactDDPMScheduler(), UniPCMultistepScheduler.from_config(ExactDDPMScheduler().config)),
        (ExactDDPMScheduler(), EulerDiscreteScheduler.from_config(ExactDDPMScheduler().config)),
        (DDIMScheduler(**V), DDIMScheduler(**V, rescale_betas_zero_snr=True)),
        (EDMDPMSolverMultistepScheduler(), EDMHeunScheduler()),
    ],
)
def test_another_scheduler_for_the_same_process_draws(own, other):
    assert generate(other, make_pipeline(own)).isfinite().all()


def test_another_network_comes_with_its_own_process():
    pipe = make_pipeline(DDIMScheduler())
    pipe.unet = tiny_unet(1, num_class_embeds=None)
    assert generate(FlowMatchHeunDiscreteScheduler(), pipe).isfinite().all()


def test_what_a_network_predicts_is_taken_over_with_it():
    pipe = ClassConditionalPipeline.from_pipe(make_pipeline(DDIMScheduler()), scheduler=DDIMScheduler(**V))
    with pytest.raises(ValueError, match="prediction_type='epsilon'"):
        generate(pipe.scheduler, pipe)


def test_palette_refuses_too_but_a_network_that_is_told_noise_levels_takes_any_schedule():
    pipe = tiny_palette.make_pipeline()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="diffusion process with prediction_type='v_prediction'"):
        tiny_palette.draw(pipe)
    pipe = tiny_palette.make_pipeline(noise_conditioning="gamma")
    pipe.scheduler = DDIMScheduler(**V, clip_sample=False, num_train_timesteps=100, beta_end=0.2)
    tiny_palette.draw(pipe)


def test_each_stage_of_a_cascade_refuses():
    unets = {"unet": tiny_unet(0, num_class_embeds=None), "unet_2": tiny_unet(0, in_channels=6, sample_size=16)}
    pipe = CascadePipeline(**unets, scheduler=DDIMScheduler(), scheduler_2=FlowMatchEulerDiscreteScheduler())
    pipe.scheduler_2 = DDIMScheduler()
    with pytest.raises(ValueError, match=r"`scheduler_2` \(DDIMScheduler\) .* `unet_2` was trained for a flow"):
        pipe(num_inference_steps=2)


# With the package installed, and with the file that is published.
LOADERS = {
    "installed": lambda folder, **given: ClassConditionalPipeline.from_pretrained(folder, **given),
    "published": lambda folder, **given: DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **given),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_scheduler_given_while_loading_must_fit_the_saved_one(tmp_path, load):
    make_pipeline(DPMSolverMultistepScheduler(**FLOW)).save_pretrained(tmp_path)
    pipe = load(tmp_path, scheduler=DDIMScheduler())
    with pytest.raises(ValueError, match=r"`scheduler` \(DDIMScheduler\) .* own DPMSolverMultistepScheduler"):
        generate(pipe.scheduler, pipe)
    pipe = load(tmp_path, scheduler=FlowMatchHeunDiscreteScheduler())
    assert generate(pipe.scheduler, pipe).isfinite().all()
    # A pipeline that is saved with another scheduler still knows the process.
    pipe.save_pretrained(tmp_path / "again")
    for folder in (tmp_path, tmp_path / "again"):
        with pytest.raises(ValueError, match="was trained for a flow"):
            generate(DDIMScheduler(), load(folder))


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_another_noise_schedule_given_while_loading_is_refused(tmp_path, load):
    make_pipeline(DDIMScheduler()).save_pretrained(tmp_path)
    pipe = load(tmp_path, scheduler=DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    with pytest.raises(ValueError, match="another noise schedule than the pipeline's own DDIMScheduler"):
        generate(pipe.scheduler, pipe)


def test_a_pipeline_with_another_network_is_saved_with_its_process(tmp_path):
    pipe = make_pipeline(DDIMScheduler())
    pipe.unet, pipe.scheduler = tiny_unet(1, num_class_embeds=None), FlowMatchHeunDiscreteScheduler()
    pipe.save_pretrained(tmp_path)
    loaded = ClassConditionalPipeline.from_pretrained(tmp_path)
    assert generate(loaded.scheduler, loaded).isfinite().all()


@pytest.mark.parametrize("own", [DDIMScheduler(**V), ExactDDIMScheduler(**V)])
def test_a_folder_without_the_process_has_that_of_its_scheduler(tmp_path, own):
    make_pipeline(own).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["trained_processes"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    afterwards = ClassConditionalPipeline.from_pretrained(tmp_path)
    given = ClassConditionalPipeline.from_pretrained(tmp_path, scheduler=DDIMScheduler())
    shutil.rmtree(tmp_path / "scheduler")  # as while a repository is downloaded without it
    assert ClassConditionalPipeline.load_config(tmp_path)["trained_processes"] == {}
    for pipe in (afterwards, given):
        with pytest.raises(ValueError, match="prediction_type='v_prediction'"):
            generate(DDIMScheduler(), pipe)


def test_each_stage_of_a_saved_cascade_refuses(tmp_path):
    unets = {"unet": tiny_unet(0, num_class_embeds=None), "unet_2": tiny_unet(0, in_channels=6, sample_size=16)}
    schedulers = {"scheduler": DDIMScheduler(), "scheduler_2": FlowMatchEulerDiscreteScheduler()}
    CascadePipeline(**unets, **schedulers).save_pretrained(tmp_path)
    pipe = CascadePipeline.from_pretrained(tmp_path, scheduler_2=DDIMScheduler())
    with pytest.raises(ValueError, match=r"`scheduler_2` \(DDIMScheduler\) .* `unet_2` was trained for a flow"):
        pipe(num_inference_steps=2)
