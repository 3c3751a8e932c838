"""Diffusion from class labels, or from nothing but noise, and cascades of it."""

from diffusers_ext.demo.controls import Seed
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, seed_captions, seeded
from diffusers_ext.pipelines.networks import get_num_labels, takes_classes


class ClassConditionalPanel(Panel):
    pipelines = ("ClassConditionalPipeline",)

    def actions(self):
        pipeline = self.pipeline
        names, is_optional = self.classes()
        controls = {}
        if names:
            controls["label"] = self.class_choice(names, is_optional)
        if names and (is_optional or pipeline.guider is not None):
            controls["guidance_scale"] = self.guidance(pipeline.guider)
        controls["number"] = self.number_of_images()
        controls["num_inference_steps"] = self.steps(pipeline.config.default_num_inference_steps)
        controls["seed"] = Seed()
        return [Action("Pictures", controls, self.make)]

    def classes(self) -> tuple[dict[str, int], bool]:
        """The classes by name, and whether pictures can be made without one."""
        pipeline, null_label = self.pipeline, self.pipeline.config.null_class_label
        guides = hasattr(pipeline.guider, "guide") and pipeline.classifier is not None
        network = pipeline.class_embedder or pipeline.unet
        has_classes = pipeline.class_embedder is not None or takes_classes(network)
        if not has_classes and not guides:
            return {}, True
        count = get_num_labels(network) if has_classes else pipeline.classifier.config.get("num_classes")
        return class_names(pipeline.config.id2label, count, null_label), not has_classes or null_label is not None

    def make(self, number, num_inference_steps, seed, label=None, guidance_scale=None):
        options, number = self.sampled(label, number)
        if label is not None:
            options["guidance_scale"] = guidance_scale
        pictures = self.pipeline(
            num_inference_steps=num_inference_steps, generator=seeded(seed, number), **options
        ).images
        return Made(pictures, seed_captions(seed, number))


PANEL = ClassConditionalPanel
