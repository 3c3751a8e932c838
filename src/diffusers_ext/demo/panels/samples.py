"""Pictures of classes, of a text or of nothing, drawn anew or into a picture: tokens, pixels, energies, strokes."""

import inspect

from diffusers_ext.demo.controls import Number, Seed, Text
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, seed_captions, seeded


class SamplesPanel(Panel):
    pipelines = (
        "AutoregressivePipeline",
        "DensityPipeline",
        "EnergyPipeline",
        "MaskGITPipeline",
        "SketchPipeline",
        "TokensToImagePipeline",
    )

    def actions(self):
        condition, options = self.condition(), self.options()
        pictures = {**condition, "number": self.number_of_images(), **options, "seed": Seed()}
        actions = [Action("Pictures", pictures, self.make)]
        if "mask_image" in self.arguments:
            painted = {"painted": self.painted_picture(channels=self.pipeline.image_shape[0])}
            painted |= {**self.condition(at_once=False), "number": self.number_of_images(1), **options, "seed": Seed()}
            painted["longest_side"] = self.longest_side()
            actions.append(Action("Inpainting", painted, self.fill, compares=True))
        return actions

    @property
    def arguments(self):
        return inspect.signature(self.pipeline.__call__).parameters

    def condition(self, at_once=True):
        """What the pictures show: a text or a class, if the network knows one of them."""
        pipeline, config = self.pipeline, self.pipeline.config
        if getattr(pipeline, "tokenizer", None) is not None:
            return {"prompt": Text("Prompt", is_required=not config.knows_no_text)}
        null_label = config.get("null_class_label")
        count = pipeline.num_labels if hasattr(pipeline, "num_labels") else pipeline.num_classes
        names = class_names(config.id2label, count, null_label)
        model = getattr(pipeline, "model", None)
        # A density, which has `sample`, is of all classes together, too, and so are most energies.
        of_any_class = hasattr(model, "sample") or not getattr(model, "needs_class_labels", True)
        return {"label": self.class_choice(names, null_label is not None or of_any_class, at_once)} if names else {}

    def options(self):
        controls = {}
        if getattr(self.pipeline, "can_guide", False):
            controls["guidance_scale"] = Number("Guidance", 1.0, 0, 20, info="1 is none.")
        if "temperature" in self.arguments:
            info = "Below 1 pictures are more typical, and less diverse."
            controls["temperature"] = Number("Temperature", 1.0, 0.1, 2, info=info)
        if "num_inference_steps" in self.arguments:
            controls["num_inference_steps"] = self.steps(self.pipeline.scheduler.config.num_inference_steps)
        return controls

    def make(self, number, seed, label=None, prompt=None, guidance_scale=None, **options):
        if prompt:
            options |= {"prompt": prompt, "num_images_per_prompt": number}
            self.check_number(number)
        else:
            labelled, number = self.sampled(label, number)
            options |= labelled
        if guidance_scale is not None and (prompt or label is not None):
            options["guidance_scale"] = guidance_scale
        pictures = self.pipeline(generator=seeded(seed, number), **options).images
        return Made(pictures, seed_captions(seed, number))


PANEL = SamplesPanel
