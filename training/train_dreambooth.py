"""DreamBooth: teach a text-to-image model a subject, or several, from a few images of each.

    accelerate launch training/train_dreambooth.py --pretrained_model_name_or_path <base> \
        --instance_data_dir ~/my_dog --instance_prompt "a photo of sks dog" \
        --with_prior_preservation --class_prompt "a photo of a dog" --lora_rank 16

Ruiz et al. 2023 ("DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation"): the model
learns the images of the subject under a rare word, and beside them images of its class that it made itself before, so
that it does not forget what other members of the class look like.
"""

import json
import logging
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.subjects import Subject
from diffusers_ext.training.loop.command import run
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.text_to_image.class_images import ClassImages
from diffusers_ext.training.text_to_image.prompt_sampler import PromptSampler
from diffusers_ext.training.text_to_image.subject_options import SubjectsConfig
from diffusers_ext.training.train_text_to_image import FineTuningConfig, FineTuningRecipe


logger = logging.getLogger(__name__)


@dataclass
class Instance:
    """One of the subjects, as the options of these names describe it."""

    instance_data_dir: str | None = None
    instance_prompt: str | None = None
    class_prompt: str | None = None
    class_data_dir: str | None = None


@dataclass
class DreamBoothConfig(FineTuningConfig, SubjectsConfig):
    """The options of train_dreambooth.py."""

    # The subject
    instance_data_dir: str | None = option(
        help="The folder of images of the subject; or name them as a data set, by --dataset_name or --train_data_dir."
    )
    instance_prompt: str | None = option(help="What they show, with a rare word for it: `a photo of sks dog`.")
    caption_column: str | None = option(
        help="The column of captions of each image's own, instead of that prompt; `text` if they stand in text files "
        "beside the images."
    )
    class_prompt: str | None = option(help="What class the subject is of: `a photo of a dog`.")
    class_data_dir: str | None = option(
        help="The folder of images of the class: generated ones are kept there, and your own are used if there are "
        "any. By default, in --output_dir."
    )
    subjects: list[JSONObject] | None = option(
        help="Several subjects instead of one: a list of {instance_data_dir, instance_prompt, class_prompt, "
        "class_data_dir}, in the YAML file of --config or as JSON texts."
    )

    # Prior preservation
    with_prior_preservation: bool = option(
        False, help="Train on images of the class too, which the base makes, so that the class stays what it was."
    )
    prior_loss_weight: float = option(1.0, help="How much these count, relative to the images of the subject.")
    num_class_images: int = option(100, help="How many of them each class has; what is missing is generated.")
    sample_batch_size: int = option(4, help="How many of them are generated at once.")

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
                "--instance_data_dir says where the images are: leave out --dataset_name and --train_data_dir",
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
                f"--instance_prompt is required{where}: what its images show; or name a --caption_column",
            )
            self.require(
                bool((instance.class_prompt or "").strip()) or not self.with_prior_preservation,
                f"--with_prior_preservation needs a --class_prompt{where}: what class the subject is of",
            )

    def instances(self) -> list[Instance]:
        """The subjects.

        Raises:
            ValueError: if they are described in two ways, or not as a subject is.
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
                f"--subjects are described by texts, not as in {subject}",
            )
            self.require(
                subject.get("instance_data_dir") is not None, f"--subjects need an instance_data_dir, as in {subject}"
            )
        return [Instance(**subject) for subject in self.subjects]

    def image_subjects(self) -> list[Subject]:
        if self.train_data_dir is None:
            return [Subject(self.instance_prompt, None, self.dataset_name, self.dataset_config_name)]
        return [Subject(i.instance_prompt, i.instance_data_dir or self.train_data_dir) for i in self.instances()]


class DreamBoothRecipe(FineTuningRecipe):
    """Ruiz et al. 2023: the denoiser learns the subjects, and goes on making what it made of their classes."""

    config_class = DreamBoothConfig

    def __init__(self, config: DreamBoothConfig):
        super().__init__(config)
        self.instances = config.instances()
        if not config.with_prior_preservation and any(instance.class_prompt for instance in self.instances):
            logger.warning("A --class_prompt changes nothing without --with_prior_preservation.")

    def identity(self) -> dict:
        if not self.config.with_prior_preservation:
            return super().identity()
        found = [images.fingerprint() for images in self.class_images]
        return {**super().identity(), "prior_loss_weight": self.config.prior_loss_weight, "class_images": found}

    def trained_networks(self):
        if self.config.with_prior_preservation:
            # Before anything is changed: the images are those of the base.
            self.class_images = self._find_class_images()
        return super().trained_networks()

    def _find_class_images(self) -> list[ClassImages]:
        """The images of the class of each subject, made where they are missing."""
        config, accelerator = self.config, self.accelerator
        found = []
        for instance in self.instances:
            folder = Path(instance.class_data_dir or Path(config.output_dir) / "class_images").expanduser()
            images = ClassImages(folder, instance.class_prompt, config.num_class_images, self._origin(instance))
            share = (config.sample_batch_size, accelerator.process_index, accelerator.num_processes)
            with self.base.as_loaded():
                images.make(partial(self._generate_class, instance.class_prompt), *share)
            found.append(images)
        accelerator.wait_for_everyone()
        return found

    def _origin(self, instance: Instance) -> str:
        """All that the images of its class depend on; the seed of a run is not among that, so runs can share them."""
        precision = self.accelerator.mixed_precision
        sampler = {"size": self.config.size, "precision": precision, **self._call_arguments()}
        return json.dumps([self.base_fingerprint, instance.class_prompt, sampler], sort_keys=True)

    def _generate_class(self, prompt: str, numbers: range) -> torch.Tensor:
        """The images of a class of these numbers, uint8 (N, 3, H, W)."""
        pipeline = self.base.pipeline
        pipeline.set_progress_bar_config(disable=True)
        height, width = self.config.size
        images = PromptSampler(self.base, self.accelerator, pipeline)(
            prompt=[prompt] * len(numbers),
            generator=[torch.Generator().manual_seed(derive_seed("class image", prompt, i)) for i in numbers],
            output_type="pt",
            height=height,
            width=width,
            **self._call_arguments(),
        ).images
        return images.mul(255).round().to("cpu", torch.uint8)

    def losses(self, batch, draw):
        if not self.config.with_prior_preservation:
            return super().losses(batch, draw)
        both = self._with_class_images(batch, draw)
        rows = range(len(batch["pixel_values"]))
        # The streams of the samples serve their class images too, after themselves.
        losses, prior_losses = super().losses(both, draw.select([*rows, *rows])).chunk(2)
        self.log(instance_loss=losses, prior_loss=prior_losses)
        return losses + self.config.prior_loss_weight * prior_losses

    def _with_class_images(self, batch: dict[str, torch.Tensor], draw) -> dict[str, torch.Tensor]:
        """A batch, followed by an image of the class of each sample's subject."""
        pixel_values, subjects = batch["pixel_values"], batch["class_labels"]
        chosen = []
        for subject, place in zip(subjects.tolist(), draw.uniform().tolist(), strict=True):
            images = self.class_images[subject]
            chosen.append(images.read(int(place * len(images.paths)), tuple(pixel_values.shape[2:])))
        images, time_ids = (torch.stack(tensors).to(pixel_values.device) for tensors in zip(*chosen, strict=True))
        return {
            "pixel_values": torch.cat([pixel_values, images]),
            "time_ids": torch.cat([batch["time_ids"], time_ids]),
            # Numbers beyond those of the captions are those of the classes.
            "caption_ids": torch.cat([batch["caption_ids"], len(self.dataset.captions) + subjects]),
        }

    def prompts(self, batch, draw):
        known = [*self.dataset.captions, *(instance.class_prompt for instance in self.instances)]
        return [known[index] for index in batch["caption_ids"].tolist()]

    def default_prompts(self):
        prompts = [i.instance_prompt for i in self.instances if i.instance_prompt]
        return list(dict.fromkeys(prompts))[:4] or super().default_prompts()

    def describe(self) -> dict:
        described = super().describe()
        prior = ", with prior preservation" if self.config.with_prior_preservation else ""
        described |= {"task": f"DreamBooth{prior}. {described['task']}", "tags": [*described["tags"], "dreambooth"]}
        return {**described, "dataset": self._data()} if len(self.instances) > 1 else described

    def _data(self) -> str:
        """What a model card says of the images of several subjects."""
        folders = dict.fromkeys(Path(instance.instance_data_dir).name for instance in self.instances)
        names, (height, width) = ", ".join(f"`{name}`" for name in folders), self.config.size
        return f"{names}: {self.dataset.num_examples} images, {height}x{width}x{self.config.channels}."


if __name__ == "__main__":
    run(DreamBoothRecipe)
