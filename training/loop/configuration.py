"""Training options: one dataclass per recipe, read from a YAML file and the command line."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

from diffusers_ext.data import ImageDataset, load_image_dataset
from diffusers_ext.data.loading import LabelMaps, check_resolution
from diffusers_ext.hub.pipeline_folders import refuse_single_file
from diffusers_ext.metrics import METRICS
from diffusers_ext.training.loop.options import (
    JSONObject as JSONObject,
    OptionParser,
    as_arguments,
    nearest,
    option as option,
)
from diffusers_ext.training.loop.posthoc_ema import LARGEST_STD


class Config:
    """A set of options that checks itself and can be written to YAML."""

    def __post_init__(self):
        for name, value in vars(self).items():
            # As a path, an empty text is the current folder, which nobody means.
            self.require(not name.endswith("_dir") or value != "", f"--{name} must name a folder, not be empty")
            self.require(name.endswith("prompt") or value != "", f"--{name} must not be empty")
            if name.endswith("_name_or_path") and value is not None:
                refuse_single_file(value, f"--{name}")
            for number in value if isinstance(value, list) else [value]:
                is_finite = not isinstance(number, float) or math.isfinite(number)
                self.require(is_finite, f"--{name} must be a finite number, not {number}")

    @staticmethod
    def require(condition: bool, sentence: str) -> None:
        """Check an option.

        Raises:
            ValueError: with `sentence`, if `condition` is false.
        """
        if not condition:
            raise ValueError(f"{sentence}.")

    def require_at_least(self, least: float, *names: str) -> None:
        """Refuse options below `least`, and lists with such an entry. Options that are not set are allowed."""
        for name in names:
            value = getattr(self, name)
            for number in value if isinstance(value, list) else [value]:
                self.require(number is None or number >= least, f"--{name} must be at least {least}, not {number}")

    def require_default(self, condition: bool, names: Sequence[str], meaning: str) -> None:
        """Refuse options that have no effect: unless `condition` holds, they must have their default values.

        Args:
            condition (`bool`): whether the options have an effect.
            names (`Sequence[str]`): the options.
            meaning (`str`): what they are for, as the end of a sentence.
        """
        options = type(self).__dataclass_fields__
        for name in names:
            default, factory = options[name].default, options[name].default_factory
            default = factory() if default is dataclasses.MISSING else default
            self.require(condition or getattr(self, name) == default, f"--{name} {meaning}")

    def to_dict(self) -> dict:
        """All options as plain values, without secrets."""
        values = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(self).items()}
        values.pop("hub_token", None)
        return values

    def to_yaml(self) -> str:
        """The options that are set, in a form that `--config` reads."""
        return yaml.safe_dump({k: v for k, v in self.to_dict().items() if v is not None}, sort_keys=False)


LRScheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "warmup_stable_decay",
    "exponential",
]


@dataclass
class DataConfig(Config):
    """Where the images come from."""

    option_group = "data"

    dataset_name: str | None = option(help="A data set on the Hub, or `digits` (built in).", essential=True)
    dataset_config_name: str | None = option(help="The configuration of the data set, if it has several.")
    train_data_dir: str | None = option(
        help="A folder of images (class folders, a metadata file, or parquet files), instead of --dataset_name.",
        essential=True,
    )
    dataset_split: str = option("train", help="The split to train on.")
    image_column: str = option("image", help="The column that holds the images.")
    conditioning_image_column: str | None = option(
        help="The column of conditioning images, from which the images of --image_column are to be made."
    )
    conditioning_image_dir: str | None = option(
        help="A folder of conditioning images with the names of the images in --train_data_dir (the extensions may "
        "differ), instead of --conditioning_image_column."
    )
    conditioning_label_maps: LabelMaps | None = option(
        help="The conditioning images are label maps, a class per pixel, which are resized without mixing classes. "
        "colors: they keep their colours; numbers become the colours of Pascal VOC, as by "
        "`diffusers_ext.data.decode_label_colors`. levels: numbers become gray levels."
    )
    conditioning_num_labels: int | None = option(
        help="How many labels the maps of --conditioning_label_maps levels have: maps with others are refused."
    )
    label_column: str | None = option(
        help="The column of class labels, or `none` for an unconditional model. By default `label`, if there is one."
    )
    streaming: bool = option(False, help="Read the data set as a stream, for sets that do not fit on this machine.")
    shuffle_buffer_size: int = option(1000, help="How many images of a stream are shuffled at a time.")
    cache_images: bool | None = option(
        help="Keep the decoded images on the disk, for all processes and later runs. By default, if they fit in half "
        "of the free memory."
    )
    verify_images: bool = option(
        False, help="Read all images before the first step, to find those that can't be read, even without a cache."
    )
    skip_unreadable_images: bool = option(False, help="Leave out images that can't be read, and count them.")
    max_image_pixels: int | None = option(
        help="Refuse images with more pixels, because small files can claim huge sizes; by default 179 million."
    )
    cache_dir: str | None = option(help="Where downloaded data sets and models, and decoded images, are kept.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "max_image_pixels", "shuffle_buffer_size")
        self.require_default(self.streaming, ("shuffle_buffer_size",), "is for --streaming, which is not set")
        self.require_default(
            self.dataset_name is not None, ("dataset_config_name",), "is for --dataset_name, which is not set"
        )
        named = self.conditioning_options()
        self.require(len(named) < 2, f"{' and '.join(named)} are two ways to name conditioning images: give one")
        self.require(
            self.conditioning_label_maps is None or self.has_conditioning_images(),
            "--conditioning_label_maps is for conditioning images: name them by --conditioning_image_column or "
            "--conditioning_image_dir",
        )
        self.require(
            self.conditioning_num_labels is None
            or (self.conditioning_label_maps == "levels" and self.conditioning_num_labels > 0),
            "--conditioning_num_labels must be positive, and is for --conditioning_label_maps levels",
        )

    def conditioning_options(self) -> list[str]:
        """The options that are set, of those that name conditioning images."""
        return [f"--{name}" for name in ("conditioning_image_column", "conditioning_image_dir") if getattr(self, name)]

    def has_conditioning_images(self) -> bool:
        """Whether the images come with conditioning images."""
        return bool(self.conditioning_options())

    def load_dataset(
        self, size: tuple[int, int], channels: int, center_crop: bool = False, random_flip: bool = False, **options
    ) -> ImageDataset:
        """The images that these options name, of this size; `options` are more of [`load_image_dataset`]."""
        settings = {
            "dataset_name": self.dataset_name,
            "dataset_config_name": self.dataset_config_name,
            "train_data_dir": self.train_data_dir,
            "split": self.dataset_split,
            "image_column": self.image_column,
            "conditioning_image_column": self.conditioning_image_column,
            "conditioning_image_dir": self.conditioning_image_dir,
            "conditioning_label_maps": self.conditioning_label_maps,
            "conditioning_num_labels": self.conditioning_num_labels,
            "label_column": self.label_column,
            "resolution": size,
            "channels": channels,
            "center_crop": center_crop,
            "random_flip": random_flip,
            "streaming": self.streaming,
            "shuffle_buffer_size": self.shuffle_buffer_size,
            "cache_images": self.cache_images,
            "verify_images": self.verify_images,
            "skip_unreadable_images": self.skip_unreadable_images,
            "max_image_pixels": self.max_image_pixels,
            "cache_dir": self.cache_dir,
        }
        return load_image_dataset(**(settings | options))


@dataclass
class EvaluationConfig(Config):
    """What is measured."""

    option_group = "evaluation"

    num_evaluation_samples: int = option(1000, help="How many samples are measured.")
    evaluation_batch_size: int = option(100, help="Samples per process and call of the pipeline.")
    feature_extractor: str | None = option(
        help="digits, inception, or a local folder or Hub name of an image model; without it nothing is measured."
    )
    metrics: list[str] | None = option(
        help="What is measured: fid, kid, is, precision, recall, density, coverage, accuracy, classes; by default all "
        "that the extractor and the labels allow."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_evaluation_samples", "evaluation_batch_size")
        unknown = ", ".join(sorted(set(self.metrics or ()) - set(self.known_metrics)))
        self.require(not unknown, f"--metrics must be among {', '.join(self.known_metrics)}, not {unknown}")

    @property
    def known_metrics(self) -> Sequence[str]:
        """What can be measured."""
        return METRICS

    def measured(self) -> dict:
        """What is measured, as keywords of the evaluators in `training/evaluation`."""
        return {
            "feature_extractor": self.feature_extractor,
            "metrics": self.metrics,
            "num_samples": self.num_evaluation_samples,
            "batch_size": self.evaluation_batch_size,
        }


@dataclass
class ImageConfig(Config):
    """What is done to the images of the training."""

    option_group = "data"

    resolution: list[int] = option(
        [64], help="The size of the images in pixels: one number, or height and width.", essential=True
    )
    channels: int = option(3, help="1 (grayscale), 2 (grayscale with alpha), 3 (RGB) or 4 (RGB with alpha).")
    center_crop: bool = option(False, help="Crop images that are not square at their centre, not at a random place.")
    random_flip: bool = option(False, help="Mirror half of the images, chosen anew in each epoch.")
    load_size: list[int] | None = option(
        help="Resize images to this size, one number or height and width, before a random crop of --resolution; all "
        "images of a pair get the same crop. This is the jitter of pix2pix and CycleGAN (286 for 256)."
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("resolution", "load_size"):
            value = getattr(self, name)
            self.require(
                value is None or len(value) in (1, 2),
                f"--{name} takes one number, or height and width, not {value}",
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return check_resolution(self.resolution)


@dataclass
class OptimisationConfig(Config):
    """How long the networks are trained, and how their weights change."""

    option_group = "optimisation"

    seed: int = option(0, help="The seed of everything random: data order, augmentation, noise, initial weights.")
    train_batch_size: int = option(16, help="How many images each process takes per step.", essential=True)
    gradient_accumulation_steps: int = option(
        1, help="How many batches are added up for one update: the effect of larger batches, without their memory."
    )
    max_train_steps: int | None = option(
        help="How many updates to make. If it is given, --num_train_epochs has no effect.", essential=True
    )
    num_train_epochs: int = option(100, help="How often to go through the data.")
    learning_rate: float = option(1e-4, help="The learning rate after the warm-up.", essential=True)
    lr_scheduler: LRScheduler = option(
        "constant_with_warmup",
        help="How the learning rate changes after a linear warm-up; warmup_stable_decay keeps it, then lowers it "
        "linearly to 0.",
    )
    lr_warmup_steps: int = option(500, help="Over how many updates the learning rate rises from 0 to its value.")
    lr_decay_steps: int | None = option(
        help="warmup_stable_decay: over how many updates the rate falls; by default half of the training."
    )
    lr_num_cycles: int = option(1, help="cosine_with_restarts: how many cycles.")
    lr_power: float = option(1.0, help="polynomial: the power.")
    lr_decay_rate: float = option(0.9999, help="exponential: what the rate is multiplied by in each update.")
    lr_end: float = option(1e-5, help="exponential: what the rate falls to.")
    adam_beta1: float = option(0.9, help="AdamW: the decay of the mean of the gradients.")
    adam_beta2: float = option(0.999, help="AdamW: the decay of the mean of the squared gradients.")
    adam_weight_decay: float = option(0.01, help="AdamW: the weight decay.")
    adam_epsilon: float = option(1e-8, help="AdamW: the number that is added to the denominator.")
    use_8bit_adam: bool = option(
        False, help="Keep the state of AdamW in 8 bits, which takes less memory; needs a GPU and bitsandbytes."
    )
    max_grad_norm: float = option(1.0, help="Scale gradients down to this norm if they are larger; 0 never does.")
    max_grad_value: float | None = option(help="Limit each value of a gradient to plus or minus this number.")
    max_grad_rms: float | None = option(
        help="Limit each value of a gradient to this many of its root mean squares, which AdamW keeps, plus 0.1: for "
        "losses whose gradients break out now and then."
    )
    use_ema: bool = option(
        True, help="Keep a moving average of the weights (EMA), which is what is sampled and published."
    )
    ema_decay: float = option(0.9999, help="The decay of this average is min(ema_decay, (1 + step) / (10 + step)).")
    posthoc_ema_stds: list[float] | None = option(
        help="Keep averages of these lengths, relative to the training (0.05 0.10), and store snapshots of them: "
        "from these, `python -m diffusers_ext.training.reconstruct_ema` makes an average of any length."
    )
    posthoc_ema_steps: int = option(
        100, help="How many updates lie between two of these snapshots; one more follows the last update."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "train_batch_size", "gradient_accumulation_steps", "max_train_steps")
        self.require_at_least(1, "num_train_epochs", "lr_num_cycles", "posthoc_ema_steps")
        self.require_at_least(0, "lr_warmup_steps", "lr_decay_steps", "max_grad_norm", "adam_weight_decay")
        rate = self.learning_rate
        self.require(rate is None or rate > 0, f"--learning_rate must be positive, not {rate}")
        self.require(
            self.max_grad_rms is None or (self.max_grad_rms > 0 and not self.use_8bit_adam),
            f"--max_grad_rms must be positive, not {self.max_grad_rms}, and is not for --use_8bit_adam",
        )
        self.require(
            self.max_grad_value is None or self.max_grad_value > 0,
            f"--max_grad_value must be positive, not {self.max_grad_value}",
        )
        self.require(0 < self.lr_decay_rate <= 1, f"--lr_decay_rate must be in (0, 1], not {self.lr_decay_rate}")
        self.require_at_least(0, "lr_end")
        self.require(0 <= self.ema_decay < 1, f"--ema_decay must be in [0, 1), not {self.ema_decay}")
        lengths = self.posthoc_ema_stds or []
        self.require(
            len(set(lengths)) == len(lengths) and all(0 < std < LARGEST_STD for std in lengths),
            f"--posthoc_ema_stds must be different numbers between 0 and {LARGEST_STD:.4f}, not {lengths}",
        )
        scheduler = self.lr_scheduler
        self.require_default(bool(lengths), ("posthoc_ema_steps",), "is for --posthoc_ema_stds, which is not set")
        self.require_default(self.use_ema, ("ema_decay",), "has no effect with --use_ema false")
        for name, used_by in (
            ("lr_decay_steps", "warmup_stable_decay"),
            ("lr_num_cycles", "cosine_with_restarts"),
            ("lr_power", "polynomial"),
            ("lr_decay_rate", "exponential"),
            ("lr_end", "exponential"),
        ):
            self.require_default(scheduler == used_by, (name,), f"is for --lr_scheduler {used_by}, not {scheduler}")


@dataclass
class SpeedConfig(Config):
    """What makes a training faster or smaller, and leaves its algorithm unchanged."""

    option_group = "speed"

    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        help="The precision of the networks; noise and losses stay in float32; by default as `accelerate config` says."
    )
    gradient_checkpointing: bool = option(
        False, help="Compute activations twice instead of keeping them: less memory, more time."
    )
    compile: bool = option(
        False, help="Compile the networks with torch.compile: it takes a minute, and pays in long runs."
    )
    channels_last: bool = option(False, help="Keep images and weights with the channels innermost in memory.")
    allow_tf32: bool = option(False, help="Multiply matrices in TF32, on GPUs that have it: faster, less exact.")
    dataloader_num_workers: int = option(
        0, help="How many processes decode images that are not kept in memory.", group="data"
    )
    cpu_threads: int | None = option(
        help="On CPUs: the threads of each process; by default OMP_NUM_THREADS, or else a share of the cores."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(0, "dataloader_num_workers")
        self.require_at_least(1, "cpu_threads")


@dataclass
class OutputConfig(Config):
    """What a run writes, and when."""

    option_group = "output"

    output_dir: str = option(
        "outputs/model", help="The folder for the pipeline, the checkpoints and the logs.", essential=True
    )
    dry_run: bool = option(
        False,
        help="Build everything, read the data, time a few steps, print sizes and times, and stop. Nothing is written, "
        "except caches outside of --output_dir.",
        essential=True,
    )
    checkpointing_steps: int = option(500, help="How many updates lie between two checkpoints.")
    checkpoints_total_limit: int | None = option(help="How many checkpoints are kept; by default all.")
    resume_from_checkpoint: str | None = option(
        help="Continue from this checkpoint: its folder, its name in --output_dir, or `latest`.", essential=True
    )
    validation_steps: int | None = option(
        help="How many updates lie between two grids of samples; 0: there is one, at the end. By default, also now "
        "and then after the first two minutes, with pauses that keep their share of the time below 2%."
    )
    evaluation_steps: int | None = option(
        help="How many updates lie between two evaluations; by default there is one, at the end.", group="evaluation"
    )
    report_to: str = option("none", help="The tracker that gets the losses: tensorboard, wandb, trackio, all or none.")
    logging_steps: int = option(1, help="How many updates lie between two log lines.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "checkpointing_steps", "checkpoints_total_limit", "logging_steps")
        self.require_at_least(1, "evaluation_steps")
        self.require_at_least(0, "validation_steps")


@dataclass
class PublishingConfig(Config):
    """Whether and where the result is published."""

    option_group = "publishing"

    push_to_hub: bool = option(False, help="Publish the result on the Hub when the training ends.", essential=True)
    hub_model_id: str | None = option(help="The repository, user/name; by default the name of --output_dir.")
    hub_token: str | None = option(help="A token with write access; by default the token of your login.")
    hub_private_repo: bool | None = option(help="Whether a new repository is private.")
    license: str | None = option(help="The licence of the weights, as the Hub spells it, such as apache-2.0.")


@dataclass
class RunConfig(PublishingConfig, OutputConfig, SpeedConfig, OptimisationConfig):
    """The options that every recipe has, with the names of diffusers' training scripts wherever these have one."""

    def __post_init__(self):
        super().__post_init__()
        if self.push_to_hub:
            name = self.hub_model_id or Path(self.output_dir).name
            self.require(is_repo_id(name), f"--hub_model_id must be user/name, not {name!r}: letters, digits, '-._'")


@dataclass
class TrainingConfig(RunConfig, ImageConfig, DataConfig, EvaluationConfig):
    """The options of every recipe that is trained on images.

    Attributes:
        takes_conditioning_images (`bool`): whether the recipe reads conditioning images; others refuse them.
    """

    takes_conditioning_images = False

    def __post_init__(self):
        super().__post_init__()
        named = " and ".join(self.conditioning_options())
        self.require(
            self.takes_conditioning_images or not named,
            f"{named} can't be used: this training has no conditioning images",
        )


@dataclass
class ValidationConfig(TrainingConfig):
    """The options of recipes whose measures and grids start from given images."""

    option_group = "evaluation"

    validation_split: str | None = option(
        help="The split of the images that are measured and shown; by default the split for training."
    )

    def validation_splits(self) -> dict:
        """The options that name the validation images, if they differ from the training images."""
        return {} if self.validation_split is None else {"dataset_split": self.validation_split}

    def load_validation_dataset(self, trained_on: ImageDataset, same_classes: bool = False) -> ImageDataset:
        """The images that are measured and shown, resized to the resolution without a random crop.

        Args:
            trained_on (`ImageDataset`): the images of the training.
            same_classes (`bool`): whether they must have the classes of the training images.

        Raises:
            ValueError: if their classes differ.
        """
        splits = self.validation_splits()
        if not splits and self.load_size is None:
            return trained_on
        dataset = replace(self, **splits).load_dataset(trained_on.resolution, trained_on.channels)
        if same_classes and dataset.id2label != trained_on.id2label:
            raise ValueError(f"The splits {self.dataset_split} and {self.validation_split} differ in their classes.")
        return dataset


def is_repo_id(name: str) -> bool:
    """Whether a repository of the Hub can have this name, `user/name` or `name`."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.isascii()


AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse_config(config_class: type[AnyConfig], arguments: list[str]) -> AnyConfig:
    """Fill `config_class` from `--config file.yaml` and command-line options; the latter win.

    The file's entries are read as if they stood first on the command line, so both are checked by the same rules.
    A bad option, value or file prints one sentence and exits with status 2, as argparse does.
    """
    parser = OptionParser(config_class, sys.modules[config_class.__module__].__doc__)
    path = _config_path(arguments)
    try:
        options = {} if path is None else _read_yaml(path)
        known = [f.name for f in dataclasses.fields(config_class)]
        unknown = [name + nearest(name, known) for name in sorted(set(options) - set(known))]
        if unknown:
            raise ValueError(f"{path} sets {', '.join(unknown)}, which this script does not know (see --help)")
        values = vars(parser.parse_args(_as_arguments(options) + arguments))
        values.pop("config")
        for name, value in values.items():
            # argparse reads "--name=--" as no value at all.
            if value == [] and not isinstance(parser.get_default(name), list):
                raise ValueError(f"--{name} needs a value")
        return config_class(**values)
    except (ValueError, OSError, yaml.YAMLError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def _config_path(arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return argument.removeprefix("--config=")
        if argument == "--config":
            return arguments[position + 1] if position + 1 < len(arguments) else None
    return None


def _config_file(path: str) -> Path:
    """The file that `--config` names: in the current folder, or among the examples of this package."""
    shipped = Path(__file__).parents[2] / path
    return shipped if not Path(path).exists() and path.startswith("examples/") and shipped.is_file() else Path(path)


def _read_yaml(path: str) -> dict:
    options = yaml.safe_load(_config_file(path).read_text())
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold options as `name: value` lines")
    return options


def _as_arguments(options: dict) -> list[str]:
    arguments = []
    for name, value in options.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *as_arguments(value)]
        elif value is not None:
            arguments.append(f"--{name}={as_arguments(value)[0]}")
    return arguments
