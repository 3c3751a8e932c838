"""Pictures of texts by CLIP's embeddings, variations of a picture, and pictures between two."""

from diffusers_ext.demo.controls import Integer, Number, Seed, Text
from diffusers_ext.demo.panel import Action, Made, Panel, seed_captions, seeded, shrink


class UnCLIPPanel(Panel):
    pipelines = ("UnCLIPPixelPipeline",)

    def actions(self):
        sampling = {
            "guidance_scale": self.guidance(self.pipeline.guider),
            "num_inference_steps": self.steps(self.pipeline.config.default_num_inference_steps),
            "seed": Seed(),
        }
        number, side = {"number": self.number_of_images()}, {"longest_side": self.longest_side()}
        between = {"first": self.picture("First picture"), "second": self.picture("Second picture")}
        between |= {"num_steps": Integer("Pictures", 6, 2, self.limits.images), **sampling, **side}
        actions = [
            Action("Variations", {"image": self.picture(), **number, **sampling, **side}, self.make),
            Action("Between two", between, self.interpolate, films=True),
        ]
        if self.pipeline.prior is not None:
            prior = {
                "prior_guidance_scale": Number("Guidance of the prior", 1.0, 0, 20, is_advanced=True),
                "prior_num_inference_steps": self.steps(25, "Steps of the prior"),
            }
            text = {"prompt": Text("Prompt", is_required=True), **number, **sampling, **prior}
            actions.insert(0, Action("Pictures", text, self.make))
        return actions

    def make(self, number, seed, longest_side=None, image=None, **options):
        self.check_number(number)
        if image is not None:
            options["image"] = shrink(image, longest_side)
        pictures = self.pipeline(num_images_per_prompt=number, generator=seeded(seed, number), **options).images
        return Made(pictures, seed_captions(seed, number))

    def interpolate(self, first, second, num_steps, seed, longest_side, **options):
        embeds = self.pipeline.interpolate(shrink(first, longest_side), shrink(second, longest_side), num_steps)
        # The same noise for all, so that only the embedding changes.
        same = [generator for _ in range(num_steps) for generator in seeded(seed, 1)]
        pictures = self.pipeline(image_embeds=embeds, generator=same, **options).images
        return Made(pictures, [f"{i}/{num_steps - 1}" for i in range(num_steps)], film=pictures + pictures[-2:0:-1])


PANEL = UnCLIPPanel
