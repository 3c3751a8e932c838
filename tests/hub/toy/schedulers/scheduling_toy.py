from diffusers import DDIMScheduler


# Diffusers would not load this class by its module path, because the module has no `SchedulerMixin` in it.
class ToyScheduler(DDIMScheduler):
    def step(self, model_output, timestep, sample, **kwargs):
        return super().step(0.5 * model_output, timestep, sample, **kwargs)
