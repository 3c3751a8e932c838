"""The pipeline around a DiT, or without an autoencoder the transformer and its scheduler."""

from diffusers import AutoencoderKL

from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.facebook_dit.transformer import convert_dit
from diffusers_ext.converters.family import Saveable
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


NUM_INFERENCE_STEPS = 250  # of the original's script, which takes them at equal distances


def latent_transformer(state_dict: StateDict, options: dict) -> dict[str, Saveable]:
    """A [`ClassConditionalPipeline`], or the components `unet` and `scheduler` if no `vae` is given.

    Args:
        state_dict (`Mapping`): the tensors of the original.
        options (`dict`): arguments of [`convert_dit`], `id2label`, and `vae`, where an `AutoencoderKL` is.

    Raises:
        ValueError: if options are missing, or do not fit the network.
    """
    id2label, address = options.pop("id2label", None), options.pop("vae", None)
    transformer = convert_dit(state_dict, **options)
    scheduler = dit_scheduler(transformer.config.out_channels > transformer.config.in_channels)
    if address is None:
        if id2label is not None:
            raise ValueError("`id2label` names the classes of a pipeline, and without `vae` there is none.")
        return {"unet": transformer, "scheduler": scheduler}
    pipeline = ClassConditionalPipeline(
        transformer,
        scheduler,
        vae=AutoencoderKL.from_pretrained(address),
        id2label=class_names(id2label, transformer.config.num_embeds_ada_norm),
        null_class_label=transformer.config.num_embeds_ada_norm,
        default_num_inference_steps=NUM_INFERENCE_STEPS,
    )
    return {"": pipeline}


def dit_scheduler(learn_sigma: bool) -> ExactDDPMScheduler:
    """The diffusion process of DiT: guided-diffusion's process, without clipping."""
    return ExactDDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        variance_type="learned_range" if learn_sigma else "fixed_large",
        clip_sample=False,
        timestep_spacing="linspace",
    )
