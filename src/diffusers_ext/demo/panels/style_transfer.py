"""Pictures in the style of another one, or in the style that a network was trained for."""

from diffusers_ext.demo.controls import Choice, Integer, Number
from diffusers_ext.demo.panel import Action, Made, Panel, shrink
from diffusers_ext.pipelines.checks import accepts


COLORS = {"of the style": False, "of the picture": "coral", "of the picture, only its light is painted": "luminance"}


class StyleTransferPanel(Panel):
    pipelines = ("StyleTransferPipeline",)

    def actions(self):
        network, sees = self.pipeline.generator, self.pipeline.feature_network or self.pipeline.generator
        has_own_style = network is not None and not accepts(network.forward, "style")
        controls = {"image": self.picture()}
        if not has_own_style:
            controls["style_image"] = self.picture("Style")
        controls["strength"] = Number("Strength", 1.0, 0, 1, 0.05)
        if not has_own_style:
            controls["preserve_colors"] = Choice("Colours", COLORS)
        if hasattr(sees, "layers") and not has_own_style:
            least, default = (1, 50) if network is None else (0, 0)
            info = "Of an optimisation by the features of a network, which is slow."
            controls["num_optimization_steps"] = Integer("Steps", default, least, 500, info=info)
        info = "Half the side of the windows in which edges stay those of the picture; 0 for paintings."
        controls["guided_filter_radius"] = Integer("Edges of the picture", 0, 0, 32, info=info, is_advanced=True)
        controls["longest_side"] = self.longest_side()
        return [Action("Style transfer", controls, self.make, compares=True)]

    def make(self, image, longest_side, style_image=None, **options):
        image = shrink(image, longest_side)
        if style_image is not None:
            options["style_image"] = shrink(style_image, longest_side)
        painted = self.pipeline(image, **options).images[0]
        return Made([painted], ["painted"], (image, painted))


PANEL = StyleTransferPanel
