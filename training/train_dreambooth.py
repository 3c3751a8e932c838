r"""DreamBooth: teach a text-to-image model a subject, or several, from a few images of each.

    accelerate launch training/train_dreambooth.py --pretrained_model_name_or_path <base> \
        --instance_data_dir ~/my_dog --instance_prompt "a photo of sks dog" \
        --with_prior_preservation --class_prompt "a photo of a dog" --lora_rank 16

Ruiz et al. 2023 ("DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation"): the model
learns the images of the subject under a rare word. Beside them it is trained on images of the subject's class that it
generated itself before the training, so that it does not forget the other members of the class.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import json
import logging
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.subjects import Subject
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.text_to_image.class_images import ClassImages
from diffusers_ext.training.text_to_image.fine_tuning import FineTuningConfig, FineTuningRecipe
from diffusers_ext.training.text_to_image.prompt_lengths import refuse_cut_prompts
from diffusers_ext.training.text_to_image.prompt_sampler import PromptSampler
from diffusers_ext.training.text_to_image.subject_images import SubjectsConfig, SubjectsRecipe


logger = logging.getLogger(__name__)


class DreamBoothRecipe(SubjectsRecipe, FineTuningRecipe):
    """Ruiz et al. 2023: the denoiser learns the subjects, and keeps the classes that they belong to."""

    def trained_networks(self):
        if self.config.with_prior_preservation:
            # Before any weight changes: these are images of the base.
            self.class_images = self._find_class_images()
        return super().trained_networks()

    def losses(self, batch, draw):
        if not self.config.with_prior_preservation:
            return super().losses(batch, draw)
        both = self._with_class_images(batch, draw)
        rows = range(len(batch["pixel_values"]))
        # The class image of a sample uses the same random stream as the sample, after it.
        losses, prior_losses = super().losses(both, draw.select([*rows, *rows])).chunk(2)
        self.log(instance_loss=losses, prior_loss=prior_losses)
        return losses + self.config.prior_loss_weight * prior_losses

    def _with_class_images(self, batch: dict[str, torch.Tensor], draw) -> dict[str, torch.Tensor]:
        """A batch, followed by an image of the class of each sample's subject."""
        pixel_values, subjects = batch["pixel_values"], batch["class_labels"]
        chosen = []
        for subject, place in zip(subjects.tolist(), draw.host.uniform().tolist(), strict=True):
            images = self.class_images[subject]
            chosen.append(images.read(int(place * len(images.paths)), tuple(pixel_values.shape[2:])))
        images, time_ids = (torch.stack(tensors).to(pixel_values.device) for tensors in zip(*chosen, strict=True))
        return {
            "pixel_values": torch.cat([pixel_values, images]),
            "time_ids": torch.cat([batch["time_ids"], time_ids]),
            # The prompts of the classes are numbered after the captions.
            "caption_ids": torch.cat([batch["caption_ids"], len(self.dataset.captions) + subjects]),
        }

    def prompts(self, batch, draw):
        known = [*self.dataset.captions, *(instance.class_prompt for instance in self.instances)]
        return [known[index] for index in batch["caption_ids"].tolist()]

    # What stands around the algorithm

    def __init__(self, config: DreamBoothConfig, context: TrainingContext):
        super().__init__(config, context)
        self.instances = config.instances()
        if not config.with_prior_preservation and any(instance.class_prompt for instance in self.instances):
            logger.warning("A --class_prompt has no effect without --with_prior_preservation.")
        for name in ("instance_prompt", "class_prompt"):
            refuse_cut_prompts(self.base, [getattr(instance, name) for instance in self.instances], f"--{name}")

    def image_subjects(self) -> list[Subject]:
        config = self.config
        if config.train_data_dir is None:
            return [Subject(config.instance_prompt, None, config.dataset_name, config.dataset_config_name)]
        return [Subject(i.instance_prompt, i.instance_data_dir or config.train_data_dir) for i in config.instances()]

    def identity(self) -> dict:
        if not self.config.with_prior_preservation:
            return super().identity()
        found = [images.fingerprint() for images in self.class_images]
        return {**super().identity(), "prior_loss_weight": self.config.prior_loss_weight, "class_images": found}

    def _find_class_images(self) -> list[ClassImages]:
        """The images of the class of each subject; missing ones are generated."""
        config, context = self.config, self.context
        found = []
        for instance in self.instances:
            folder = Path(instance.class_data_dir or Path(config.output_dir) / "class_images").expanduser()
            images = ClassImages(folder, instance.class_prompt, config.num_class_images, self._origin(instance))
            with self.base.as_loaded():
                generate = partial(self._generate_class, instance.class_prompt)
                images.make(generate, config.sample_batch_size, **context.share)
            found.append(images)
        context.wait_for_everyone()
        return found

    def _origin(self, instance: Instance) -> str:
        """All that the images of its class depend on. The run's seed is not part of it, so runs can share them."""
        sampler = {"size": self.config.size, "precision": self.context.precision, **self._call_arguments()}
        return json.dumps([self.base_fingerprint, instance.class_prompt, sampler], sort_keys=True)

    def _generate_class(self, prompt: str, numbers: range) -> torch.Tensor:
        """The images of a class with these numbers, uint8 (N, 3, H, W)."""
        pipeline = self.base.pipeline
        pipeline.set_progress_bar_config(disable=True)
        height, width = self.config.size
        images = PromptSampler(self.base, self.context, pipeline)(
            prompt=[prompt] * len(numbers),
            generator=[torch.Generator().manual_seed(derive_seed("class image", prompt, i)) for i in numbers],
            output_type="pt",
            height=height,
            width=width,
            **self._call_arguments(),
        ).images
        return images.mul(255).round().to("cpu", torch.uint8)

    def default_prompts(self):
        prompts = [i.instance_prompt for i in self.instances if i.instance_prompt]
        return list(dict.fromkeys(prompts))[:4] or super().default_prompts()

    def describe(self) -> dict:
        described = super().describe()
        prior = ", with prior preservation" if self.config.with_prior_preservation else ""
        described |= {"task": f"DreamBooth{prior}. {described['task']}", "tags": [*described["tags"], "dreambooth"]}
        return {**described, "dataset": self._data()} if len(self.instances) > 1 else described

    def _data(self) -> str:
        """The line of the model card about the images of several subjects."""
        folders = dict.fromkeys(Path(instance.instance_data_dir).name for instance in self.instances)
        names, (height, width) = ", ".join(f"`{name}`" for name in folders), self.config.size
        return f"{names}: {self.dataset.num_examples} images, {height}x{width}x{self.config.channels}."


@dataclass
class Instance:
    """One of the subjects; the attributes are the options of the same names."""

    instance_data_dir: str | None = None
    instance_prompt: str | None = None
    class_prompt: str | None = None
    class_data_dir: str | None = None


@dataclass
class DreamBoothConfig(FineTuningConfig, SubjectsConfig):
    """The options of train_dreambooth.py."""

    # The subject
    instance_data_dir: str | None = option(
        help="The folder with the images of the subject. Or use --dataset_name or --train_data_dir.",
        group="data",
        essential=True,
    )
    instance_prompt: str | None = option(
        help="The prompt of these images, with a rare word for the subject: `a photo of sks dog`.",
        group="data",
        essential=True,
    )
    caption_column: str | None = option(
        help="The column with a caption for each image, instead of that prompt; `text` if the captions are in text "
        "files beside the images."
    )
    class_prompt: str | None = option(help="The class that the subject belongs to: `a photo of a dog`.", group="data")
    class_data_dir: str | None = option(
        help="The folder with images of the class. Your own images in it are used first, and generated ones are "
        "stored there. By default, a folder in --output_dir.",
        group="data",
    )
    subjects: list[JSONObject] | None = option(
        help="Several subjects instead of one: a list of {instance_data_dir, instance_prompt, class_prompt, "
        "class_data_dir}, in the YAML file of --config or as JSON texts.",
        group="data",
    )

    # Prior preservation
    with_prior_preservation: bool = option(
        False, help="Train on images of the class too, generated by the base, so that the class stays as it was."
    )
    prior_loss_weight: float = option(1.0, help="The weight of these images, relative to the images of the subject.")
    num_class_images: int = option(
        100, help="The number of images of each class; missing ones are generated.", group="data"
    )
    sample_batch_size: int = option(4, help="The number of images that are generated at once.", group="data")

    # A subject has few images
    train_batch_size: int = option(1, help="Images per process and step, and as many of the class.")
    num_train_epochs: int = option(200, help="How often to go through the images of the subjects.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")

    def __post_init__(self):
        if self.subjects is not None:
            self.subjects = [dict(subject) for subject in self.subjects]
        folders = [instance.instance_data_dir for instance in self.instances()]
        if folders[0] is not None:
            self.require(
                self.dataset_name is None and self.train_data_dir in (None, folders[0]),
                "--instance_data_dir already names the images: leave out --dataset_name and --train_data_dir",
            )
            self.train_data_dir = folders[0]
        super().__post_init__()
        self.require_at_least(0, "prior_loss_weight")
        self.require_at_least(1, "num_class_images", "sample_batch_size")
        for instance in self.instances():
            name = instance.instance_data_dir or self.train_data_dir or self.dataset_name
            where = f" for {name}" if name else ""
            self.require(
                bool((instance.instance_prompt or "").strip()) or self.caption_column is not None,
                f"--instance_prompt is required{where}, or a --caption_column",
            )
            self.require(
                bool((instance.class_prompt or "").strip()) or not self.with_prior_preservation,
                f"--with_prior_preservation needs a --class_prompt{where}: the class that the subject belongs to",
            )

    def instances(self) -> list[Instance]:
        """The subjects.

        Raises:
            ValueError: if they are described in two ways, or an entry of `--subjects` is not valid.
        """
        names = [field.name for field in fields(Instance)]
        if self.subjects is None:
            return [Instance(**{name: getattr(self, name) for name in names})]
        given = [name for name in names if getattr(self, name) is not None]
        self.require(not given, f"--subjects describe each subject by itself: leave out --{', --'.join(given)}")
        self.require(len(self.subjects) > 0, "--subjects must name at least one")
        for subject in self.subjects:
            unknown = [key for key in subject if key not in names]
            self.require(not unknown, f"--subjects are described by {', '.join(names)}, not by {', '.join(unknown)}")
            self.require(
                all(isinstance(value, str | None) for value in subject.values()),
                f"--subjects are described by texts, unlike {subject}",
            )
            self.require(
                subject.get("instance_data_dir") is not None, f"--subjects need an instance_data_dir, unlike {subject}"
            )
        return [Instance(**subject) for subject in self.subjects]


if __name__ == "__main__":
    run(DreamBoothRecipe, DreamBoothConfig)
