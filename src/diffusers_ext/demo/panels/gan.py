"""Generators of GANs: pictures, latents moved by hand or along found directions, and walks from latent to latent."""

from diffusers_ext.demo.controls import Directions, Integer, Number, Seed, Switch, Text
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, film, seed_captions, seeded
from diffusers_ext.pipelines.style_options import has_styles


EDIT_STEPS = (-1, -0.5, 0, 0.5, 1)
MOST_NAMES = 20


class GANPanel(Panel):
    pipelines = ("GANPipeline",)

    def actions(self):
        config = self.pipeline.generator.config
        names = class_names(self.pipeline.config.id2label, config.get("num_classes"))
        label = {"label": self.class_choice(names, is_optional=False)} if config.get("num_classes") else {}
        one_label = {"label": self.class_choice(names, is_optional=False, at_once=False)} if label else {}
        truncation = Number(
            "Truncation", None, 0.01, 10, info="The largest size of the noise: less is more typical. Empty: no limit."
        )
        truncations = {"truncation": truncation}
        if has_styles(self.pipeline.generator):
            info = "How much of their distance from the average pictures keep: less is more typical."
            truncations = {"truncation_psi": Number("Truncation", 1.0, 0, 2, info=info)}
        pictures = {**label, "number": self.number_of_images(16), **truncations, "seed": Seed()}
        sliders = self.latent_sliders(config.latent_dim)
        walk = {
            **one_label,
            "num_points": Integer("Points", 4, 2, 16),
            "num_frames": Integer("Frames", 48, 2, 240),
            "closed": Switch("Back to the first point", True),
            **truncations,
            "seed": Seed(),
        }
        info = "Empty: the first one of the file."
        edits = {
            **one_label,
            "directions": Directions("Directions"),
            "name": Text("Name of the direction", info=info),
            "strength": Number("Strength", 3.0, 0.1, 10),
            "seed": Seed(),
        }
        latents = {**one_label, "seed": Seed(info="Of the latents that the sliders add to.", default=0), **sliders}
        return [
            Action("Pictures", pictures, self.make_pictures),
            Action("Latents", latents, self.move, is_live=True),
            Action("Walk", walk, self.walk, films=True),
            Action("Edits", edits, self.edit),
        ]

    def make_pictures(self, number, seed, label=None, **truncation):
        options, number = self.sampled(label, number)
        pictures = self.pipeline(generator=seeded(seed, number), **options, **truncation).images
        return Made(pictures, seed_captions(seed, number))

    def move(self, seed, label=None, **shifts):
        """The picture of a seed, and that of its latents with a number added to some of them."""
        pipeline = self.pipeline
        latents = pipeline.prepare_latents(1, pipeline.device, seeded(seed, 1)).repeat(2, 1)
        latents[1, : len(shifts)] += latents.new_tensor(list(shifts.values()))
        options = {} if label is None else {"class_labels": label, "num_images_per_label": 2}
        return Made(pipeline(latents=latents, **options).images, [f"seed {seed}", "moved"])

    def edit(self, directions, name, strength, seed, label=None):
        """The picture of a seed, moved along a direction in even steps."""
        pipeline, names = self.pipeline, list(directions.vectors)
        latents = pipeline.prepare_latents(1, pipeline.device, seeded(seed, 1)).repeat(len(EDIT_STEPS), 1)
        labels = {} if label is None else {"class_labels": [label] * len(EDIT_STEPS)}
        strengths = [step * strength for step in EDIT_STEPS]
        pictures = pipeline.edit(directions, name.strip() or names[0], strengths, latents=latents, **labels).images
        shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
        return Made(
            pictures, [f"strength {value:.1f}" for value in strengths], note=f"Directions of the file: {shown}"
        )

    def walk(self, num_points, num_frames, closed, seed, label=None, **truncation):
        output = self.pipeline.walk(
            class_labels=label,
            num_frames=num_frames,
            num_points=num_points,
            closed=closed,
            generator=seeded(seed, 1),
            **truncation,
        )
        return film(output.images[0], seed)


PANEL = GANPanel
