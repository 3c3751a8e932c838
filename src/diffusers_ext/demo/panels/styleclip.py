"""Pictures of a generator that a CLIP finds like a prompt."""

from diffusers_ext.demo.controls import Integer, Number, Seed, Text
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, seeded
from diffusers_ext.pipelines.style_options import has_styles


class StyleCLIPPanel(Panel):
    pipelines = ("StyleCLIPPipeline",)

    def actions(self):
        pipeline = self.pipeline
        controls = {"prompt": Text("Prompt", is_required=True)}
        names = class_names(pipeline.config.id2label, pipeline.num_classes)
        if names:
            controls["class_labels"] = self.class_choice(names, has_styles(pipeline.generator), at_once=False)
        info = "The best of so many random starts is shown."
        controls |= {
            "num_candidates": Integer("Starts", 8, 1, 64, info=info),
            "num_optimization_steps": Integer("Steps", 50, 0, 500),
            "latent_weight": Number("Stay near the start", 0.0, 0, 0.1, 0.001, is_advanced=True),
            "seed": Seed(),
        }
        return [Action("Pictures", controls, self.make)]

    def make(self, seed, **options):
        made = self.pipeline(generator=seeded(seed, 1), **options)
        return Made(made.images, [f"seed {seed}, cosine {made.scores[0].item():.3f}"])


PANEL = StyleCLIPPanel
