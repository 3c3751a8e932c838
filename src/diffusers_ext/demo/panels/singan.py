"""Pictures with the patches of one image, a picture that gets these patches, and a film of the image."""

from diffusers_ext.demo.controls import Integer, Seed
from diffusers_ext.demo.panel import Action, Made, Panel, film, seed_captions, seeded


class SinGANPanel(Panel):
    pipelines = ("SinGANPipeline",)

    def actions(self):
        _, height, width = self.pipeline.image_shape
        highest = max(self.limits.side, height, width)
        pictures = {
            "number": self.number_of_images(),
            "height": Integer("Height", height, 16, highest),
            "width": Integer("Width", width, 16, highest),
            "first_scale": self.first_scale(0, "From this scale on, all is random; 0 is the coarsest one."),
            "seed": Seed(),
        }
        given = {
            "picture": self.own_picture("Picture, such as a drawing or a collage"),
            "first_scale": self.first_scale(1, "From this scale on, it is made anew: the lower, the more changes."),
            "number": self.number_of_images(1),
            "seed": Seed(),
        }
        moving = {
            "num_frames": Integer("Frames", 24, 2, 120),
            "first_scale": self.first_scale(1, "Coarser scales stand still."),
            "seed": Seed(),
        }
        return [
            Action("Pictures", pictures, self.make),
            Action("Into the image", given, self.change, compares=True),
            Action("Film", moving, self.animate, films=True),
        ]

    def first_scale(self, default, info):
        last = self.pipeline.generator.num_scales - 1
        return Integer("First scale", min(default, last), min(default, last), last, info=info)

    def make(self, number, seed, **options):
        self.check_number(number)
        pictures = self.pipeline(number, generator=seeded(seed, number), **options).images
        return Made(pictures, seed_captions(seed, number))

    def change(self, picture, first_scale, number, seed):
        made = self.make(number, seed, first_scale=first_scale, image=picture)
        made.pair = picture.resize(made.pictures[0].size), made.pictures[0]
        return made

    def animate(self, num_frames, first_scale, seed):
        return film(self.pipeline.animate(num_frames, first_scale, generator=seeded(seed, 1)[0]).frames[0], seed)


PANEL = SinGANPanel
