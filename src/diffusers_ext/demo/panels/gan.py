"""Generators of GANs: pictures, latents moved by hand, and walks from latent to latent."""

from diffusers_ext.demo.controls import Integer, Number, Seed, Switch
from diffusers_ext.demo.panel import Action, Made, Panel, class_names, film, seed_captions, seeded


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
        pictures = {**label, "number": self.number_of_images(16), "truncation": truncation, "seed": Seed()}
        sliders = self.latent_sliders(config.latent_dim)
        walk = {
            **one_label,
            "num_points": Integer("Points", 4, 2, 16),
            "num_frames": Integer("Frames", 48, 2, 240),
            "closed": Switch("Back to the first point", True),
            "truncation": truncation,
            "seed": Seed(),
        }
        latents = {**one_label, "seed": Seed(info="Of the latents that the sliders add to.", default=0), **sliders}
        return [
            Action("Pictures", pictures, self.make_pictures),
            Action("Latents", latents, self.move, is_live=True),
            Action("Walk", walk, self.walk, films=True),
        ]

    def make_pictures(self, number, truncation, seed, label=None):
        options = {"batch_size": number}
        if label is not None:
            options = {"class_labels": label, "num_images_per_label": number}
            number *= len(label) if isinstance(label, list) else 1
        self.check_number(number)
        pictures = self.pipeline(truncation=truncation, generator=seeded(seed, number), **options).images
        return Made(pictures, seed_captions(seed, number))

    def move(self, seed, label=None, **shifts):
        """The picture of a seed, and that of its latents with a number added to some of them."""
        pipeline = self.pipeline
        latents = pipeline.prepare_latents(1, pipeline.device, seeded(seed, 1)).repeat(2, 1)
        latents[1, : len(shifts)] += latents.new_tensor(list(shifts.values()))
        options = {} if label is None else {"class_labels": label, "num_images_per_label": 2}
        return Made(pipeline(latents=latents, **options).images, [f"seed {seed}", "moved"])

    def walk(self, num_points, num_frames, closed, truncation, seed, label=None):
        output = self.pipeline.walk(
            class_labels=label,
            num_frames=num_frames,
            num_points=num_points,
            closed=closed,
            truncation=truncation,
            generator=seeded(seed, 1),
        )
        return film(output.images[0], seed)


PANEL = GANPanel
