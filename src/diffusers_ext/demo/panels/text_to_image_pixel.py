"""Pictures of texts by a denoiser of pixels; super-resolvers enlarge one, and inpainting models paint into one."""

from diffusers_ext.demo.controls import Integer, Seed, Text
from diffusers_ext.demo.panel import Action, Made, Panel, seed_captions, seeded, shrink


class TextToImagePixelPanel(Panel):
    pipelines = ("TextToImagePixelPipeline",)

    def actions(self):
        small = self.small_picture() if self.pipeline.is_super_resolver else {}
        actions = [Action("Pictures", {**small, **self.text(), **self.sampling()}, self.make)]
        if self.pipeline.config.shows_known_pixels:
            painted = {"painted": self.painted_picture(channels=self.pipeline.image_shape[0]), **small, **self.text()}
            painted |= {**self.sampling(1), "longest_side": self.longest_side()}
            actions.append(Action("Inpainting", painted, self.fill, compares=True))
        return actions

    def text(self):
        negative = Text("Negative prompt", info="What the pictures must not show.", is_advanced=True)
        return {"prompt": Text("Prompt", is_required=True), "negative_prompt": negative}

    def small_picture(self):
        side = max((side for side in self.pipeline.image_shape[1:] if side is not None), default=256)
        info = "In pixels, as in training: the picture is shrunk to this first."
        small_side = Integer("Longest side of the small picture", max(1, side // 4), 1, side, info=info)
        return {"low_res_image": self.own_picture("Small picture, which is enlarged"), "small_side": small_side}

    def sampling(self, number=4):
        pipeline = self.pipeline
        return {
            "guidance_scale": self.guidance(pipeline.guider),
            "number": self.number_of_images(number),
            "num_inference_steps": self.steps(pipeline.config.default_num_inference_steps),
            "seed": Seed(),
        }

    def make(self, number, seed, low_res_image=None, small_side=None, **options):
        self.check_number(number)
        if low_res_image is not None:
            options["low_res_image"] = shrink(low_res_image, small_side)
        pictures = self.pipeline(num_images_per_prompt=number, generator=seeded(seed, number), **options).images
        return Made(pictures, seed_captions(seed, number))


PANEL = TextToImagePixelPanel
