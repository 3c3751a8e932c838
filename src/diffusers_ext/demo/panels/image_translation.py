"""Translations of pictures to another domain, and back: pix2pix, CycleGAN, DualGAN."""

from torch import nn

from diffusers_ext.demo.controls import Choice, Seed, Switch
from diffusers_ext.demo.panel import Action, Made, Panel, seed_captions, seeded, shrink


class ImageTranslationPanel(Panel):
    pipelines = ("ImageTranslationPipeline",)

    def actions(self):
        controls = {"picture": self.picture(channels=3)}
        if self.pipeline.reverse_generator is not None:
            controls["reverse"] = Choice("Direction", {"first to second domain": False, "second to first": True})
        networks = [self.pipeline.generator, self.pipeline.reverse_generator]
        if all(any(isinstance(part, nn.Dropout) for part in network.modules()) for network in networks if network):
            info = "The dropout of the training, so that pictures differ, as the authors of pix2pix have it."
            controls |= {"dropout": Switch("Dropout", info=info), "number": self.number_of_images(1), "seed": Seed()}
        info = "Batch norm by the picture itself instead of the training set."
        controls["image_statistics"] = Switch("Own statistics", info=info, is_advanced=True)
        controls["longest_side"] = self.longest_side()
        return [Action("Translation", controls, self.make, compares=True)]

    def make(self, picture, longest_side, image_statistics, reverse=False, dropout=False, number=1, seed=0):
        picture = shrink(picture, longest_side)
        options = {"reverse": reverse, "image_statistics": image_statistics}
        if dropout:
            options |= {"dropout": True, "num_images_per_input": number, "generator": seeded(seed, number)}
        pictures = self.pipeline(picture, **options).images
        captions = seed_captions(seed, number) if dropout else [""] * len(pictures)
        return Made(pictures, captions, (picture, pictures[0]))


PANEL = ImageTranslationPanel
