"""Pictures of label maps, in the style of another picture or of a seed."""

from PIL import Image, ImageOps

from diffusers_ext.data.label_colors import default_palette
from diffusers_ext.demo.controls import LabelMap, Seed
from diffusers_ext.demo.panel import Action, Made, Panel, seed_captions, seeded, shrunk_size


class SemanticSynthesisPanel(Panel):
    pipelines = ("SemanticSynthesisPipeline",)

    def actions(self):
        last = self.pipeline.generator.config.num_labels - 1
        title = f"Label map: a PNG with a number from 0 to {last} for each pixel"
        controls = {"label_map": LabelMap(title, self.limits.image_pixels)}
        if self.pipeline.style_encoder is not None:
            controls["style_image"] = self.picture("Style", is_required=False)
        if self.has_latents:
            controls |= {"number": self.number_of_images(), "seed": Seed()}
        else:
            controls["longest_side"] = self.longest_side()
        return [Action("Pictures", controls, self.make, compares=True)]

    @property
    def has_latents(self):
        return self.pipeline.generator.config.latent_dim is not None

    def make(self, label_map, number=1, seed=0, longest_side=None, style_image=None):
        self.check_number(number)
        size = self.pipeline.image_shape[:0:-1] if self.has_latents else shrunk_size(label_map.size, longest_side)
        label_map = ImageOps.fit(label_map, size, Image.Resampling.NEAREST)
        options = {"num_images_per_input": number, "generator": seeded(seed, number)} if self.has_latents else {}
        pictures = self.pipeline(label_map, style_image=style_image, **options).images
        captions = seed_captions(seed, number) if self.has_latents else [""]
        return Made(pictures, captions, (colored(label_map), pictures[0]))


def colored(label_map):
    """A label map in the colours of Pascal VOC."""
    label_map = label_map.copy()
    label_map.putpalette([channel for colour in default_palette() for channel in colour])
    return label_map.convert("RGB")


PANEL = SemanticSynthesisPanel
