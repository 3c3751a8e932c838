"""The images of a translation: pairs, or the unpaired images of two domains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffusers_ext.data import ImageDataset
from diffusers_ext.data.side_by_side import load_side_by_side_dataset
from diffusers_ext.data.unpaired import UnpairedImageDataset, load_unpaired_dataset
from diffusers_ext.metrics import METRICS
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option


@dataclass
class TranslationDataConfig(ValidationConfig):
    """Where domain A and domain B come from, and which of their images are measured."""

    option_group = "data"
    takes_conditioning_images = True

    side_by_side: bool = option(False, help="Each file holds a pair: A on the left and B on the right.")
    inputs: str | None = option(
        help="Make the images of A from the images of B: edges, a restoration task of train_palette.py such as "
        "colorization, or a function of yours, as module:function."
    )
    input_options: JSONObject = option(
        JSONObject(), help="Options of --inputs, as JSON or a YAML mapping: '{\"threshold\": 0.5}' for edges."
    )
    domains: list[str] | None = option(
        help="The two classes of the data set that are domain A and domain B; by default its classes, if it has two."
    )
    target_dataset_name: str | None = option(help="The data set of domain B, if A has another one.")
    target_data_dir: str | None = option(help="The folder of domain B, if A has another one.")
    target_split: str | None = option(help="The split of domain B, if A has another one.")
    direction: Literal["AtoB", "BtoA"] = option("AtoB", help="BtoA swaps A and B.")
    validation_target_split: str | None = option(help="The validation split of domain B, if it has a --target_split.")

    def __post_init__(self):
        super().__post_init__()
        pairs = self._pair_options()
        is_split = self.domains or self.target_dataset_name or self.target_data_dir or self.target_split
        self.require(
            not (pairs and is_split),
            f"--domains and --target_... are for images without pairs: leave them out, or {' and '.join(pairs)}",
        )
        self.require(len(pairs) < 2, f"{' and '.join(pairs)} are two ways to get pairs: give one of them")
        self.require(not self.input_options or self.inputs, "--input_options is for --inputs")
        self.require(
            not (self.target_split and self.validation_split) or self.validation_target_split is not None,
            "--validation_split with --target_split needs --validation_target_split",
        )
        self.require(not (self.side_by_side and self.streaming), "--side_by_side can't be streamed")
        measures, of_sets = self.metrics or (), [name for name in METRICS if name != "accuracy"]
        of_pairs = [name for name in measures if name not in of_sets]
        self.require(
            pairs or not of_pairs,
            f"--metrics without pairs must be among {', '.join(of_sets)}, not {', '.join(of_pairs)}",
        )
        needy = [name for name in measures if name in (*METRICS, "perceptual_distance", "deep_feature_distance")]
        self.require(not needy or self.feature_extractor, f"--metrics {' '.join(needy)} needs --feature_extractor")

    def _pair_options(self) -> list[str]:
        """The options that are set, of those that make pairs."""
        own = [f"--{name}" for name in ("side_by_side", "inputs") if getattr(self, name)]
        return self.conditioning_options() + own

    def has_conditioning_images(self) -> bool:
        return self.side_by_side or super().has_conditioning_images()

    @property
    def is_paired(self) -> bool:
        """Whether each image of A belongs to an image of B."""
        return bool(self._pair_options())

    @property
    def known_metrics(self) -> Sequence[str]:
        return [name for name in RESTORATION_METRICS if name != "diversity"]

    def load_dataset(
        self, size: tuple[int, int], channels: int, center_crop: bool = False, random_flip: bool = False, **options
    ) -> ImageDataset | UnpairedImageDataset:
        """Pairs, or the images of two domains, of the training or of the validation splits."""
        if self.conditioning_options() or self.inputs is not None:
            return super().load_dataset(size, channels, center_crop, random_flip, **options)
        names = ("dataset_name", "dataset_config_name", "train_data_dir", "image_column", "label_column", "cache_dir")
        names += ("cache_images", "verify_images", "skip_unreadable_images", "max_image_pixels")
        options |= {name: getattr(self, name) for name in names}
        options |= {"split": self.dataset_split, "resolution": size, "channels": channels}
        options |= {"center_crop": center_crop, "random_flip": random_flip}
        if self.side_by_side:
            return load_side_by_side_dataset(**options, conditioning_label_maps=self.conditioning_label_maps)
        return load_unpaired_dataset(
            self.domains,
            self.target_dataset_name,
            self.target_data_dir,
            self.target_split,
            streaming=self.streaming,
            shuffle_buffer_size=self.shuffle_buffer_size,
            **options,
        )

    def validation_splits(self) -> dict:
        """The options that name the validation images of both domains, if they differ from the training images."""
        splits = super().validation_splits()
        return splits and {**splits, "target_split": self.validation_target_split}
