"""The pipeline around a whole latent-diffusion checkpoint, or the components of one."""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DConditionModel, UNet2DModel, VQModel

from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.compvis.condition_stage import CONDITION_ARGUMENTS, convert_condition
from diffusers_ext.converters.compvis.first_stage import convert_first_stage
from diffusers_ext.converters.compvis.latent_unet import COND_STAGE, FIRST_STAGE, convert_latent_diffusion
from diffusers_ext.converters.compvis.restorers import RESTORERS, restorer, semantic_synthesis
from diffusers_ext.converters.family import Saveable
from diffusers_ext.converters.original_arguments import (
    anything,
    class_count,
    one_of,
    positive_integer,
    positive_number,
    require,
)
from diffusers_ext.converters.state_dicts import StateDict, part
from diffusers_ext.models.modeling_class_embedder import ClassEmbedder
from diffusers_ext.pipelines import ClassConditionalPipeline


# The names that the original gives to schedules, and those of diffusers: its linear one is linear in the square roots.
BETA_SCHEDULES = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "squaredcos_cap_v2"}
# The original's arguments that set the diffusion process.
PROCESS = {
    "timesteps": positive_integer,
    "linear_start": positive_number,
    "linear_end": positive_number,
    "beta_schedule": one_of(*BETA_SCHEDULES),
}
# Those of the stages before the U-Net.
STAGES = {"scale_factor": positive_number, "cond_stage_key": anything, **CONDITION_ARGUMENTS}
# What no tensor shows of classes. For classifier-free guidance the last class stands for "no class".
CLASSES = {"id2label": anything, "null_class_label": class_count}


def latent_diffusion(state_dict: StateDict, options: dict) -> dict[str, Saveable]:
    """The pipeline of a model with its first stage, or the components for a condition that no pipeline here has.

    These are `unet` and `scheduler`, and if the checkpoint has them `vae` and the network of the condition:
    `class_embedder`, `conditioner` (for label maps) or `bert` (for text).

    Args:
        state_dict (`Mapping`): the tensors of the original.
        options (`dict`): arguments of [`convert_latent_diffusion`], of the `PROCESS`, of the `STAGES`, and, for a
            [`ClassConditionalPipeline`], of the `CLASSES`.
    """
    process, stages, classes = (
        {name: options.pop(name) for name in kinds if name in options} for kinds in (PROCESS, STAGES, CLASSES)
    )
    unet = convert_latent_diffusion(state_dict, **options)
    scheduler = latent_scheduler(state_dict, process)
    require(options, "image_size")
    first_stage = part(state_dict, FIRST_STAGE)
    condition = convert_condition(part(state_dict, COND_STAGE), first_stage, stages)
    check_condition(unet, condition)
    if not first_stage:
        return {"unet": unet, **condition, "scheduler": scheduler}
    vae = convert_first_stage(first_stage, scaling_factor=read_scale_factor(state_dict, stages))
    vae.register_to_config(sample_size=options["image_size"] * 2 ** (len(vae.config.block_out_channels) - 1))
    if not takes_condition(unet):
        return {"": LDMPipeline(vqvae=vae, unet=unet, scheduler=scheduler)}
    if stages.get("cond_stage_key") in RESTORERS:
        return {"": restorer(unet, scheduler, vae, stages["cond_stage_key"])}
    if "conditioner" in condition:
        return {"": semantic_synthesis(unet, scheduler, vae, condition["conditioner"])}
    if takes_only_classes(unet, condition):
        return {"": class_conditional(unet, scheduler, vae, condition.get("class_embedder"), **classes)}
    return {"unet": unet, "vae": vae, **condition, "scheduler": scheduler}


def class_conditional(
    unet: UNet2DModel | UNet2DConditionModel,
    scheduler: DDIMScheduler,
    vae: VQModel | AutoencoderKL,
    class_embedder: ClassEmbedder | None,
    id2label: Mapping | None = None,
    null_class_label: int | None = None,
) -> ClassConditionalPipeline:
    """The pipeline; by default the names of classes are their numbers, without that for "no class".

    Raises:
        ValueError: if `null_class_label` is not the last class, or `id2label` does not name the others.
    """
    num_labels = (unet if class_embedder is None else class_embedder).config.num_class_embeds
    if null_class_label not in (None, num_labels - 1):
        raise ValueError(f"`null_class_label` must be the last class, {num_labels - 1}, but is {null_class_label}.")
    return ClassConditionalPipeline(
        unet,
        scheduler,
        vae=vae,
        class_embedder=class_embedder,
        id2label=class_names(id2label, num_labels if null_class_label is None else null_class_label),
        null_class_label=null_class_label,
    )


def takes_condition(unet: UNet2DModel | UNet2DConditionModel) -> bool:
    """Whether a U-Net needs more than noisy latents and timesteps."""
    has_classes = unet.config.num_class_embeds is not None
    return isinstance(unet, UNet2DConditionModel) or has_classes or unet.config.in_channels > unet.config.out_channels


def takes_only_classes(unet: UNet2DModel | UNet2DConditionModel, condition: Mapping[str, Saveable]) -> bool:
    """Whether the condition is a class, either embedded for cross-attention or in the embedding of the timestep."""
    if unet.config.in_channels != unet.config.out_channels:
        return False
    return "class_embedder" in condition or not isinstance(unet, UNet2DConditionModel)


def check_condition(unet: UNet2DModel | UNet2DConditionModel, condition: Mapping[str, Saveable]) -> None:
    """Refuses a U-Net that does not take what the network of the condition makes."""
    for name, network in condition.items():
        if name == "conditioner":
            makes, takes = network.config.out_channels, unet.config.in_channels - unet.config.out_channels
        else:
            makes = network.config.embed_dim if name == "class_embedder" else network.config.d_model
            takes = unet.config.get("cross_attention_dim", 0)
        if makes != takes:
            raise ValueError(f"The condition has {makes} channels, but the U-Net takes a condition of {takes}.")


def read_scale_factor(state_dict: StateDict, stages: dict) -> float:
    """The factor of the latents: from the checkpoint if training measured it, else an option, which is 1 by default.

    Raises:
        ValueError: if checkpoint and option contradict each other.
    """
    given = stages.get("scale_factor")
    if "scale_factor" not in state_dict:
        return given or 1.0
    measured = float(state_dict["scale_factor"])
    if given is not None and abs(given - measured) > 1e-5 * measured:
        raise ValueError(f"`scale_factor` is given as {given}, but the checkpoint has {measured:g}.")
    return measured


def latent_scheduler(state_dict: StateDict, process: dict) -> DDIMScheduler:
    """The diffusion process of latent-diffusion.

    By default the square roots of its betas grow linearly from sqrt(linear_start) to sqrt(linear_end) in `timesteps`
    steps. If the checkpoint contains the betas, they show all three numbers.

    Raises:
        ValueError: if one of the three is missing, or contradicts the checkpoint.
    """
    betas = state_dict.get("betas")
    schedule = process.pop("beta_schedule", "linear")
    names = ("timesteps",) if schedule == "cosine" else ("timesteps", "linear_start", "linear_end")
    if betas is not None:
        read = {"timesteps": len(betas), "linear_start": float(betas[0]), "linear_end": float(betas[-1])}
        for name in names:
            if abs(process.setdefault(name, read[name]) - read[name]) > 1e-6:
                raise ValueError(f"`{name}` is given as {process[name]}, but the checkpoint has {read[name]:g}.")
    require(process, *names)
    ends = {} if schedule == "cosine" else {"beta_start": process["linear_start"], "beta_end": process["linear_end"]}
    scheduler = DDIMScheduler(
        num_train_timesteps=process["timesteps"],
        beta_schedule=BETA_SCHEDULES[schedule],
        **ends,
        clip_sample=False,
        # the original's DDIM visits the timesteps 1, 1 + T / n, ..., and ends at the first training step's alpha_bar
        set_alpha_to_one=False,
        steps_offset=1,
    )
    if betas is not None and not torch.allclose(scheduler.betas, betas.float(), rtol=1e-4, atol=1e-7):
        raise ValueError(
            f"The checkpoint's betas do not follow latent-diffusion's schedule `{schedule}`: give its `beta_schedule`."
        )
    return scheduler
