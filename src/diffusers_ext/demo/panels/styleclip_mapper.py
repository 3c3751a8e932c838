"""Random pictures of a generator, moved to the prompt of a latent mapper."""

from diffusers_ext.demo.controls import Number, Seed
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, seeded
from diffusers_ext.pipelines import GANPipeline


class StyleCLIPMapperPanel(Panel):
    pipelines = ("StyleCLIPMapperPipeline",)

    def actions(self):
        names = class_names(None, self.pipeline.generator.config.get("num_classes"))
        label = {"class_labels": self.class_choice(names, is_optional=False, at_once=False)} if names else {}
        info = "The mapper was trained with 0.1; below 0 it moves the other way."
        strength = Number("Strength", 0.1, -0.5, 0.5, 0.01, info=info)
        return [
            Action("Edit", {**label, "strength": strength, "seed": Seed()}, self.make, compares=True, is_live=True)
        ]

    def make(self, strength, seed, **options):
        start = GANPipeline(self.pipeline.generator)(generator=seeded(seed, 1), truncation_psi=0.7, **options)
        moved = self.pipeline(start.styles, strength=strength).images[0]
        note = f"To the prompt: {self.pipeline.config.prompt}" if self.pipeline.config.prompt else ""
        return Made([start.images[0], moved], [f"seed {seed}", "moved"], (start.images[0], moved), note=note)


PANEL = StyleCLIPMapperPanel
