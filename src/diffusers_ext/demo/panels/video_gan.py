"""Films of classes by one pass of a generator."""

from diffusers_ext.demo.controls import Integer, Seed
from diffusers_ext.demo.panel import Action, Panel, class_names, film, seeded


class VideoGANPanel(Panel):
    pipelines = ("VideoGANPipeline",)

    def actions(self):
        config = self.pipeline.generator.config
        names = class_names(self.pipeline.config.id2label, config.num_classes)
        label = {"class_labels": self.class_choice(names, is_optional=False, at_once=False)} if names else {}
        frames = Integer("Frames", config.num_frames, 1, max(64, config.num_frames))
        return [Action("Film", {**label, "num_frames": frames, "seed": Seed()}, self.make, films=True)]

    def make(self, seed, **options):
        return film(self.pipeline(generator=seeded(seed, 1), **options).frames[0], seed)


PANEL = VideoGANPanel
