"""Features of any image model of Transformers, from a local folder or the Hub."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from diffusers_ext.metrics.extractors.feature_extractor import FeatureOutput, to_grayscale, to_rgb


class ImageModelExtractor:
    """A Transformers image model as a `FeatureExtractor`.

    The features are the pooled output of the backbone if it has a trained pooler, and otherwise its first token
    (transformers) or its spatial mean (convolutional networks). Models of images and text (CLIP, SigLIP) give their
    image embedding. Only classification models have logits and class names.

    Args:
        name_or_path: a local folder or Hub name, with weights and an image processor.
        device: where the model runs.

    Raises:
        OSError: if the model or its image processor cannot be found (raised by Transformers).
        ValueError: if weights of the model are missing in the checkpoint; they would be random.
    """

    def __init__(self, name_or_path: str, device: str | torch.device = "cpu"):
        # torchvision resizes differently; with PIL, values do not depend on whether torchvision is installed.
        self.processor = AutoImageProcessor.from_pretrained(name_or_path, backend="pil")
        architectures = AutoConfig.from_pretrained(name_or_path).architectures or []
        classifies = any("ForImageClassification" in architecture for architecture in architectures)
        auto_class = AutoModelForImageClassification if classifies else AutoModel
        model, loaded = auto_class.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True)
        # AutoModel gives a backbone that was saved without a pooler a random one, whose output is not used here.
        self.pooler_is_trained = not any(key.split(".")[0] == "pooler" for key in loaded["missing_keys"])
        missing = sorted(key for key in loaded["missing_keys"] if key.split(".")[0] != "pooler")
        if missing:
            raise ValueError(
                f"{name_or_path} is missing {len(missing)} weights of {type(model).__name__}: {missing[0]} ..."
            )

        self.model, self.device = model.to(device).eval(), device
        config = getattr(model.config, "vision_config", model.config)
        self.is_grayscale = getattr(config, "num_channels", 3) == 1
        self.id2label = dict(model.config.id2label) if classifies else None
        folder = Path(name_or_path)
        self.name = folder.resolve().name if folder.is_dir() else name_or_path

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> FeatureOutput:
        pixel_values = self._prepare(images).to(self.device)
        if hasattr(self.model, "get_image_features"):
            backbone_output, logits = self.model.get_image_features(pixel_values=pixel_values), None
        elif self.id2label is None:
            backbone_output, logits = self.model(pixel_values=pixel_values), None
        else:
            backbone_output, logits = self._classify(pixel_values)
        features = self._pool(backbone_output).float().to(images.device)
        return FeatureOutput(features, None if logits is None else logits.float().to(images.device))

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        images = to_grayscale(images).round().to(torch.uint8) if self.is_grayscale else to_rgb(images)
        arrays = list(images.cpu().numpy())
        return self.processor(images=arrays, input_data_format="channels_first", return_tensors="pt")["pixel_values"]

    def _classify(self, pixel_values: torch.Tensor):
        """The backbone's output and the logits of one forward pass."""
        outputs = []
        handle = self.model.base_model.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            logits = self.model(pixel_values=pixel_values).logits
        finally:
            handle.remove()
        return outputs[0], logits

    def _pool(self, output) -> torch.Tensor:
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self.pooler_is_trained:
            return pooled.flatten(1)
        hidden = output.last_hidden_state
        return hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else hidden[:, 0]
