"""Photographs found in the latent space of a generator."""

from diffusers_ext.demo.controls import Choice, Integer, Seed
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, fit_to, seeded
from diffusers_ext.pipelines.style_options import has_styles


class GANInversionPanel(Panel):
    pipelines = ("GANInversionPipeline",)

    def actions(self):
        pipeline = self.pipeline
        controls = {"picture": self.own_picture("Photograph")}
        names = class_names(pipeline.config.id2label, pipeline.num_classes)
        if names and not has_styles(pipeline.generator):
            controls["class_labels"] = self.class_choice(names, is_optional=False, at_once=False)
        if pipeline.encoder is not None:
            controls["start"] = Choice("Start", {"encoder": "encoder", "average": "average"})
        info = "Of an optimisation; 0 shows the start."
        controls["num_optimization_steps"] = Integer("Steps", 100, 0, 1000, info=info)
        info = "Of pivotal tuning: a copy of the generator learns to make the photograph."
        controls["num_tuning_steps"] = Integer("Tuning", 0, 0, 500, info=info, is_advanced=True)
        controls["seed"] = Seed(default=0)
        return [Action("Inversion", controls, self.make, compares=True)]

    def make(self, picture, seed, **options):
        picture = fit_to(picture, self.pipeline.image_shape[1:], self.limits.side)
        found = self.pipeline(picture, generator=seeded(seed, 1), **options)
        return Made([picture, found.images[0]], ["photograph", "found"], (picture, found.images[0]))


PANEL = GANInversionPanel
