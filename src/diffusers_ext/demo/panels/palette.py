"""Pictures from pictures by diffusion, a tab for each task: colorization, inpainting, uncropping and others."""

from PIL import Image

from diffusers_ext.demo.controls import Integer, Number, Seed
from diffusers_ext.demo.panel import (
    HIDDEN,
    Action,
    Made,
    Panel,
    class_names,
    hide,
    seed_captions,
    seeded,
    shrink,
    shrink_mask,
)
from diffusers_ext.pipelines.networks import get_num_labels, takes_classes
from diffusers_ext.pipelines.palette_tasks import TASKS, parse_task


class PalettePanel(Panel):
    pipelines = ("PalettePipeline",)

    def actions(self):
        return [self.action(parse_task(name)) for name in self.pipeline.config.tasks or TASKS]

    def action(self, task):
        pipeline, config = self.pipeline, self.pipeline.config
        controls = {}
        if task.inpaints:
            controls["painted"] = self.painted_picture(channels=self.channels)
        else:
            controls["picture"] = self.picture("Picture", self.channels)
        if task.uncrops:
            side = max([side for side in pipeline.image_shape[1:] if side is not None], default=64)
            sides = ("left", "top", "right", "bottom")
            controls |= {name: Integer(f"Pixels to add {name}", side // 4, 0, self.limits.side) for name in sides}
        if task.enlarges:
            controls["scale_factor"] = Number("Times larger", config.default_scale_factor or 2.0, 1, 8)
        if takes_classes(pipeline.unet):
            names = class_names(config.id2label, get_num_labels(pipeline.unet), config.null_class_label)
            controls["label"] = self.class_choice(names, config.null_class_label is not None, at_once=False)
        if pipeline.guider is not None:
            controls["guidance_scale"] = self.guidance(pipeline.guider)
        controls["number"] = self.number_of_images(1)
        controls["num_inference_steps"] = self.steps(config.default_num_inference_steps)
        controls["seed"] = Seed()
        if task.inpaints or task.uncrops:
            info = "Visible pixels so near to made ones fade into these."
            controls["seam_width"] = Integer("Seam", 0, 0, 32, info=info, is_advanced=True)
        controls["longest_side"] = self.longest_side(self.shown_side(task))

        def make(**values):
            return self.make(task, **values)

        return Action(task.name.replace("_", " ").replace("+", " and ").capitalize(), controls, make, compares=True)

    @property
    def channels(self):
        """Of uploads; the pipeline makes them gray or coloured as the network wants it."""
        return 4 if self.pipeline.config.image_channels in (2, 4) else 3

    def shown_side(self, task):
        """The longest side of pictures whose results have the size of the training images."""
        sides = [side for side in self.pipeline.image_shape[1:] if side is not None]
        if not sides:
            return None
        factor = (self.pipeline.config.default_scale_factor or 2) if task.enlarges else 1
        return max(1, round(max(sides) / factor))

    def make(
        self, task, number, num_inference_steps, seed, longest_side, picture=None, painted=None, label=None, **rest
    ):
        options = {"task": task.name, "num_images_per_input": number, "num_inference_steps": num_inference_steps}
        mask = None
        if painted is not None:
            picture, mask = painted
            options["mask_image"] = mask = shrink_mask(mask, longest_side)
        picture = shrink(picture, longest_side)
        if task.uncrops and not task.inpaints:
            padding = tuple(rest.pop(name) for name in ("left", "top", "right", "bottom"))
            if not any(padding):
                raise ValueError("There is nothing to add: give the pixels of one side at least.")
            options["padding"] = padding
        if label is not None:
            options["class_labels"] = label
        self.check_size(picture, options.get("padding", (0, 0, 0, 0)), rest.get("scale_factor", 1.0))
        pictures = self.pipeline(picture, generator=seeded(seed, number), **options, **rest).images
        before = show_before(task, picture, pictures[0].size, mask, options.get("padding"))
        return Made(pictures, seed_captions(seed, number), (before, pictures[0]))

    def check_size(self, picture, padding, scale_factor):
        """Refuses results that are larger than a visit may ask for."""
        left, top, right, bottom = padding
        width, height = (picture.width + left + right) * scale_factor, (picture.height + top + bottom) * scale_factor
        if max(width, height) > self.limits.side:
            raise ValueError(
                f"The result would have {width:.0f} x {height:.0f} pixels, but at most {self.limits.side} are allowed "
                "on a side: take a smaller picture, or a lower longest side."
            )


def show_before(task, picture, size, mask, padding):
    """What the network was given, in the size of the result; hidden pixels are gray."""
    picture = picture.convert("RGB")
    if task.removes_color:
        picture = picture.convert("L").convert("RGB")
    if mask is not None:
        picture = hide(picture, mask)
    if padding is not None:
        canvas = Image.new("RGB", size, HIDDEN)
        canvas.paste(picture, padding[:2])
        return canvas
    return picture.resize(size, Image.Resampling.BICUBIC)


PANEL = PalettePanel
