"""Autoencoders: reconstructions, the pictures between two, latents moved by hand, and samples of variational ones."""

import torch

from diffusers_ext.demo.controls import Choice, Integer, Seed
from diffusers_ext.demo.panel import Action, Made, Panel, film, fit_to, seed_captions, seeded


class AutoencoderPanel(Panel):
    pipelines = ("AutoencoderPipeline",)

    def actions(self):
        side = {"longest_side": self.longest_side()}
        methods = Choice("Way", {"straight line": "linear", "great circle": "spherical"}, is_advanced=True)
        between = {
            "first": self.own_picture("First picture"),
            "second": self.own_picture("Second picture"),
            "num_steps": Integer("Pictures", 8, 2, self.limits.images),
            "method": methods,
            **side,
        }
        reconstruction = {"picture": self.own_picture(), **side}
        actions = [
            Action("Between two", between, self.interpolate, films=True),
            Action("Reconstruction", reconstruction, self.reconstruct, compares=True),
        ]
        if self.pipeline.has_prior:
            sliders = self.latent_sliders(self.pipeline.autoencoder.config.latent_dim)
            latents = {"seed": Seed(info="Of the latents that the sliders add to.", default=0), **sliders}
            samples = {"number": self.number_of_images(16), "seed": Seed()}
            walk = {"num_points": Integer("Points", 4, 2, 16), "num_frames": Integer("Frames", 48, 2, 240)}
            actions[:0] = [
                Action("Samples", samples, self.sample),
                Action("Latents", latents, self.move, is_live=True),
                Action("Walk", {**walk, "seed": Seed()}, self.walk, films=True),
            ]
        return actions

    def sample(self, number, seed):
        return Made(self.pipeline(number, seeded(seed, number)).images, seed_captions(seed, number))

    def draw_latents(self, seed, number):
        shape = (1, self.pipeline.autoencoder.config.latent_dim)
        return torch.cat([torch.randn(shape, generator=generator) for generator in seeded(seed, number)])

    def move(self, seed, **shifts):
        """The picture of a seed, and that of its latents with a number added to some of them."""
        latents = self.draw_latents(seed, 1).repeat(2, 1)
        latents[1, : len(shifts)] += torch.tensor(list(shifts.values()))
        return Made(self.pipeline(latents=latents.to(self.pipeline.device)).images, [f"seed {seed}", "moved"])

    def walk(self, num_points, num_frames, seed):
        """From each point to the next on a straight line, and back to the first."""
        points = self.draw_latents(seed, num_points)
        positions = torch.arange(num_frames) * (num_points / num_frames)
        before = positions.long()
        latents = torch.lerp(points[before], points[(before + 1) % num_points], (positions - before)[:, None])
        frames = self.pipeline(latents=latents.to(self.pipeline.device)).images
        return film(frames, seed)

    def interpolate(self, first, second, num_steps, method, longest_side):
        first = self.fit(first, longest_side)
        second = fit_to(second, first.size[::-1], longest_side)
        pictures = self.pipeline.interpolate(first, second, num_steps, method).images
        captions = [f"{i}/{num_steps - 1}" for i in range(num_steps)]
        return Made(pictures, captions, film=pictures + pictures[-2:0:-1])

    def reconstruct(self, picture, longest_side):
        picture = self.fit(picture, longest_side)
        copy = self.pipeline.reconstruct(picture).images[0]
        score = self.pipeline.outlier_score(picture).item()
        note = (
            f"Mean squared error {score:.2g}, for pixels from 0 to 1: large for pictures unlike those of the training."
        )
        return Made([picture, copy], ["picture", "reconstruction"], (picture, copy), note=note)


PANEL = AutoencoderPanel
