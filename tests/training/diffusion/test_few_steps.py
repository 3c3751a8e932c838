import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from diffusers_ext.training.diffusion.few_steps import TeacherPath, few_step_scheduler
from diffusers_ext.training.diffusion.objectives import prediction_type
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_diffusion import DiffusionConfig


def trained_with(kind, **options):
    return DiffusionConfig(dataset_name="digits", prediction_type=kind, **options).objective().sampling_scheduler()


TEACHERS = {
    "flow_prediction": lambda: trained_with("flow_prediction"),
    "shifted flow": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "v_prediction": lambda: trained_with("v_prediction"),
    "sample": lambda: trained_with("sample", beta_schedule="linear"),
    "epsilon": lambda: trained_with("epsilon"),
    "edm": lambda: EDMDPMSolverMultistepScheduler(sigma_max=20.0),
}


def network(sample, timestep):
    """Some function of the network's input."""
    return torch.sin(3 * sample) + 0.01 * sample.flip(-1) + torch.cos(torch.as_tensor(timestep).float() / 100)


# diffusers' DDIM does not hit its own timesteps exactly where their number does not divide 1000.
@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("name", TEACHERS)
def test_the_jumps_of_the_path_are_the_steps_of_the_sampler(name, num_steps):
    teacher = TEACHERS[name]()
    scheduler = few_step_scheduler(teacher, num_steps)
    path = TeacherPath(teacher, num_steps, 4 * num_steps, torch.device("cpu"))
    kind = prediction_type(scheduler)
    assert kind == ("v_prediction" if name == "epsilon" else prediction_type(teacher))

    scheduler.set_timesteps(num_steps)
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sample, start = noise * scheduler.init_noise_sigma if kind == "edm" else noise, torch.tensor([0, 0])
    # What a network sees has the variance 1 on the path.
    seen = scheduler.scale_model_input(sample, scheduler.timesteps[0]) if kind == "edm" else noise
    for timestep in scheduler.timesteps:
        end = start + 4
        assert path.timesteps[start[0]] == timestep
        clean = path.pred_original_sample(kind, network(seen, timestep), seen, start)
        scaled = scheduler.scale_model_input(sample, timestep)
        torch.testing.assert_close(scaled, seen, rtol=1e-4, atol=1e-4)
        sample = scheduler.step(network(scaled, timestep), timestep, sample).prev_sample
        seen, start = path.jump(seen, clean, start, end), end
    torch.testing.assert_close(sample, seen, rtol=1e-4, atol=1e-4)


def test_steps_begin_in_pure_noise_and_end_at_the_clean_image():
    path = TeacherPath(TEACHERS["flow_prediction"](), 2, 8, torch.device("cpu"))
    clean, noise = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 5.0)
    noisy = path.add_noise(clean, noise, torch.tensor([0, 8]))
    torch.testing.assert_close(noisy[0], noise[0], rtol=0, atol=0.01)
    torch.testing.assert_close(noisy[1], clean[1])


def test_positions_are_drawn_between_the_ends_of_the_students_steps():
    path = TeacherPath(TEACHERS["flow_prediction"](), 2, 8, torch.device("cpu"))
    start, middle, end = path.draw(Draw(0, torch.device("cpu")).begin(0, range(200)))
    assert sorted(set(start.tolist())) == list(range(8)) and (middle == start + 1).all()
    assert (end == torch.where(start < 4, 4, 8)).all()
    # Where the teacher arrives at the end, no jump is left.
    sample = torch.randn(1, 1, 2, 2)
    there = torch.tensor([8])
    assert torch.equal(path.jump(sample, 7 * sample, there, there), sample)
