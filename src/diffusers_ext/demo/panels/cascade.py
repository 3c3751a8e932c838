"""Cascades: small pictures, and super-resolvers that make them larger."""

from diffusers_ext.demo.controls import Seed, Switch
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, seed_captions, seeded
from diffusers_ext.pipelines.networks import get_num_labels, takes_classes


class CascadePanel(Panel):
    pipelines = ("CascadePipeline",)

    def actions(self):
        pipeline = self.pipeline
        base = pipeline.config.stages["unet"]
        null_label = base["null_class_label"]
        controls = {}
        if takes_classes(pipeline.unet):
            names = class_names(pipeline.config.id2label, get_num_labels(pipeline.unet), null_label)
            controls["label"] = self.class_choice(names, is_optional=null_label is not None)
            if null_label is not None or pipeline.guider is not None:
                controls["guidance_scale"] = self.guidance(pipeline.guider)
        controls["number"] = self.number_of_images()
        for stage, options in pipeline.config.stages.items():
            number = stage.partition("_")[2] or "1"
            steps = self.steps(options["default_num_inference_steps"], f"Steps of stage {number}")
            controls[f"steps_{number}"] = steps
        controls["shows_stages"] = Switch("Show all stages")
        controls["seed"] = Seed()
        return [Action("Pictures", controls, self.make)]

    def make(self, number, shows_stages, seed, label=None, guidance_scale=None, **steps):
        options, number = self.sampled(label, number)
        options["num_inference_steps"] = list(steps.values())
        if label is not None:
            options["guidance_scale"] = guidance_scale
        output = self.pipeline(generator=seeded(seed, number), output_stage_images=shows_stages, **options)
        captions = seed_captions(seed, number)
        if not shows_stages:
            return Made(output.images, captions)
        pictures, texts = [], []
        for i, stage in enumerate(output.stage_images, 1):
            pictures += stage
            texts += [f"stage {i}, {caption}" for caption in captions]
        return Made(pictures, texts)


PANEL = CascadePanel
