"""Films of texts; super-resolvers enlarge a small one, in space and in time."""

from diffusers_ext.demo.controls import Film, Integer, Seed, Text
from diffusers_ext.demo.panel import Action, Panel, film, seeded, shrink


class TextToVideoPanel(Panel):
    pipelines = ("TextToVideoPixelPipeline",)

    def actions(self):
        pipeline = self.pipeline
        frames = pipeline.config.default_num_frames
        controls = {}
        if pipeline.is_super_resolver:
            controls["low_res_video"] = Film(
                "Small film, which is enlarged", pipeline.config.image_channels, self.limits.image_pixels
            )
        controls |= {
            "prompt": Text("Prompt", is_required=True),
            "guidance_scale": self.guidance(pipeline.guider),
            "num_frames": Integer("Frames", frames, 1, max(64, frames)),
            "num_inference_steps": self.steps(pipeline.config.default_num_inference_steps),
            "seed": Seed(),
        }
        return [Action("Film", controls, self.make, films=True)]

    def make(self, seed, low_res_video=None, **options):
        if low_res_video is not None:
            options["low_res_video"] = [shrink(frame, self.limits.side) for frame in low_res_video]
        return film(self.pipeline(generator=seeded(seed, 1)[0], **options).frames[0], seed)


PANEL = TextToVideoPanel
