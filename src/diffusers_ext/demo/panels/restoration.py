"""Pictures restored in one pass, light brighter than white, and noise like that of a camera."""

from PIL import Image

from diffusers_ext.demo.controls import Seed
from diffusers_ext.demo.panel import Action, Made, Panel, seed_captions, seeded, shrink
from diffusers_ext.pipelines.images import to_output
from diffusers_ext.pipelines.light import GAMMA


TILE = 256  # pixels: larger pictures are restored piece by piece
STOPS = (0, -1, -2, -3)  # exposures, each of half the light of the one before


class RestorationPanel(Panel):
    pipelines = ("RestorationPipeline",)

    def actions(self):
        restoration = {"picture": self.picture(), "longest_side": self.longest_side(TILE)}
        actions = [Action("Restoration", restoration, self.restore, compares=True)]
        if self.pipeline.noise_generator is not None:
            noise = {"picture": self.own_picture(), "number": self.number_of_images(1), "seed": Seed()}
            noise["longest_side"] = self.longest_side(TILE)
            actions.append(Action("Noise", noise, self.add_noise, compares=True))
        return actions

    def restore(self, picture, longest_side):
        picture = shrink(picture, longest_side)
        if self.pipeline.config.peak is not None:
            return self.expose(picture)
        restored = self.pipeline(picture, tile_size=TILE).images[0]
        before = picture.resize(restored.size, Image.Resampling.BICUBIC)
        return Made([restored], ["restored"], (before, restored))

    def expose(self, picture):
        """Darker exposures of the light, in which details of what was too bright appear."""
        light = self.pipeline(picture, tile_size=TILE, output_type="pt").images
        pictures = [to_output((light * 2.0**stop).clamp(0, 1) ** (1 / GAMMA), "pil")[0] for stop in STOPS]
        captions = [f"{stop} stops" for stop in STOPS]
        return Made(pictures, captions, (picture, pictures[1]), note="Before, and one stop darker.")

    def add_noise(self, picture, number, seed, longest_side):
        self.check_number(number)
        picture = shrink(picture, longest_side)
        noisy = self.pipeline.add_noise([picture] * number, seeded(seed, number), output_type="pil")
        return Made(noisy, seed_captions(seed, number), (picture, noisy[0]))


PANEL = RestorationPanel
