"""What panels make, without Gradio."""

import sys
import types

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from PIL import Image

from diffusers_ext.demo import panels
from diffusers_ext.demo.panel import Limits, shrink, shrink_mask
from diffusers_ext.demo.panels import list_panels, panel_for
from tests.demo import kinds
from tests.pipelines import test_pipeline_class_conditional as class_conditional, tiny_palette


def run(pipeline, title, folder, limits=None, **changes):
    """What an action makes of the values that the page sends at first, with some changed."""
    action = next(action for action in panel_for(pipeline, limits).actions() if action.title == title)
    sent = {name: kinds.sent_at_first(control, folder, pipeline) for name, control in action.controls.items()}
    assert set(changes) <= set(sent), sorted(sent)
    values = {name: action.controls[name].read(value) for name, value in {**sent, **changes}.items()}
    return action.make(**values)


@pytest.mark.parametrize("kind", kinds.MAKE)
def test_every_action_makes_pictures_at_once(kind, tmp_path):
    pipeline = kinds.make(kind)
    for action in panel_for(pipeline).actions():
        few = {name: 2 for name in action.controls if "steps" in name and name != "num_steps"}
        made = run(pipeline, action.title, tmp_path, **few)
        assert made.pictures and len(made.pictures) == len(made.captions), action.title
        assert all(isinstance(picture, Image.Image) for picture in made.pictures)
        assert (made.pair is not None) == action.compares and (made.film is not None) == action.films
        if action.compares:
            assert made.pair[0].size == made.pair[1].size, action.title


def test_pipelines_get_the_panel_of_their_nearest_class():
    class Derived(type(kinds.make("gan"))):
        pass

    assert type(panel_for(kinds.make("gan"))) is list_panels()["GANPipeline"]
    assert type(panel_for(Derived(kinds.make("gan").generator))) is list_panels()["GANPipeline"]
    assert type(panel_for(kinds.make("ddpm"))) is list_panels()["DiffusionPipeline"]


def test_a_new_file_is_a_new_panel(tmp_path, monkeypatch):
    text = "from diffusers_ext.demo.panel import Panel\nclass P(Panel):\n    pipelines = ({!r},)\nPANEL = P\n"
    (tmp_path / "toy_panel.py").write_text(text.format("DDPMPipeline"))
    monkeypatch.setattr(panels, "__path__", [*panels.__path__, str(tmp_path)])
    list_panels.cache_clear()
    try:
        assert type(panel_for(kinds.make("ddpm"))).__name__ == "P"
        (tmp_path / "toy_panel_2.py").write_text(text.format("DDPMPipeline"))
        list_panels.cache_clear()
        with pytest.raises(ValueError, match="Two panels are for DDPMPipeline: P and P."):
            list_panels()
    finally:
        for name in ("toy_panel", "toy_panel_2"):
            sys.modules.pop(f"{panels.__name__}.{name}", None)
        list_panels.cache_clear()


def test_a_picture_depends_on_its_seed_alone(tmp_path):
    pipeline = kinds.make("class-conditional")
    three = run(pipeline, "Pictures", tmp_path, seed="5", number=3)
    one = run(pipeline, "Pictures", tmp_path, seed="7", number=1)
    assert three.captions == ["seed 5", "seed 6", "seed 7"] and one.captions == ["seed 7"]
    assert max(abs(a - b) for a, b in zip(three.pictures[2].tobytes(), one.pictures[0].tobytes(), strict=True)) <= 1
    assert three.pictures[0].tobytes() != three.pictures[1].tobytes()


def test_without_a_seed_each_click_has_a_new_one(tmp_path):
    captions = {run(kinds.make("gan"), "Pictures", tmp_path, number=1).captions[0] for _ in range(9)}
    assert len(captions) > 1


def test_each_class_at_once_counts_as_so_many_pictures(tmp_path):
    pipeline = kinds.make("class-conditional")
    made = run(pipeline, "Pictures", tmp_path, label="each of them", number=2)
    assert len(made.pictures) == 2 * len(class_conditional.NAMES)
    with pytest.raises(ValueError, match="one click makes at most 5"):
        run(pipeline, "Pictures", tmp_path, limits=Limits(images=5), label="each of them", number=4)


def test_guidance_reaches_the_pipeline(tmp_path):
    pipeline = class_conditional.make_pipeline(guider=ClassifierFreeGuidance(guidance_scale=3.0))
    controls = panel_for(pipeline).actions()[0].controls
    assert controls["guidance_scale"].default == 3.0
    name = next(iter(class_conditional.NAMES.values()))
    made = [
        run(pipeline, "Pictures", tmp_path, label=name, seed="1", number=1, guidance_scale=scale).pictures[0]
        for scale in (1, 8)
    ]
    assert made[0].tobytes() != made[1].tobytes()


def test_masks_hide_what_is_painted_and_keep_the_rest(tmp_path):
    pipeline = tiny_palette.make_pipeline(tasks=["inpainting"])
    made = run(pipeline, "Inpainting", tmp_path, longest_side=64)
    before, after, original = made.pair[0], made.pictures[0], kinds.draw_picture()
    assert after.size == original.size and before.getpixel((6, 5)) == (128, 128, 128)
    assert after.getpixel((15, 5)) == original.getpixel((15, 5))
    assert after.getpixel((6, 5)) != original.getpixel((6, 5))


def test_padding_is_added_and_refused(tmp_path):
    pipeline, none = kinds.make("palette"), dict.fromkeys(("left", "top", "right", "bottom"), 0)
    made = run(pipeline, "Uncropping", tmp_path, longest_side=64, **{**none, "left": 4, "bottom": 2})
    assert made.pictures[0].size == (24, 14) and made.pair[0].getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ValueError, match="nothing to add"):
        run(pipeline, "Uncropping", tmp_path, **none)
    with pytest.raises(ValueError, match="at most 32 are allowed"):
        run(pipeline, "Uncropping", tmp_path, limits=Limits(side=32), longest_side=20, **{**none, "left": 20})


def test_super_resolution_is_compared_with_the_enlarged_picture(tmp_path):
    made = run(kinds.make("palette"), "Super resolution", tmp_path, longest_side=10, scale_factor=3)
    assert made.pictures[0].size == made.pair[0].size == (30, 18)


def test_sliders_move_latents(tmp_path):
    for kind in ("gan", "gan of classes", "variational autoencoder"):
        still = run(kinds.make(kind), "Latents", tmp_path).pictures
        moved = run(kinds.make(kind), "Latents", tmp_path, shift_1=3.5).pictures
        assert still[0].tobytes() == still[1].tobytes() == moved[0].tobytes() != moved[1].tobytes(), kind


def test_walks_have_as_many_frames_as_asked(tmp_path):
    for kind in ("gan of classes", "variational autoencoder"):
        made = run(kinds.make(kind), "Walk", tmp_path, num_frames=30, num_points=3, seed="4")
        assert len(made.film) == 30 and len(made.pictures) <= 15
        again = run(kinds.make(kind), "Walk", tmp_path, num_frames=30, num_points=3, seed="4")
        assert [frame.tobytes() for frame in made.film] == [frame.tobytes() for frame in again.film]


def test_interpolation_begins_and_ends_with_the_pictures(tmp_path):
    pipeline = kinds.make("variational autoencoder")
    second = kinds.write(kinds.draw_picture((50, 50), "L"), tmp_path / "second")
    made = run(pipeline, "Between two", tmp_path, second=second, num_steps=5)
    ends = [
        run(pipeline, "Reconstruction", tmp_path).pictures[1],
        run(pipeline, "Reconstruction", tmp_path, picture=second).pictures[1],
    ]
    assert [made.pictures[i].tobytes() for i in (0, -1)] == [end.tobytes() for end in ends]
    assert len(made.pictures) == 5 and len(made.film) == 8


def test_a_pipeline_without_panel_gets_what_its_call_takes():
    controls = panel_for(kinds.make("text")).actions()[0].controls
    assert {"prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "height", "seed"} <= set(controls)
    assert not {"prompt_embeds", "latents", "output_type", "callback_on_step_end", "ip_adapter_image"} & set(controls)
    assert controls["num_images_per_prompt"].high == Limits().images


def test_words_of_a_visitor_are_never_taken_for_a_path():
    class Pipeline(type(kinds.make("ddpm"))):
        def __call__(self, image: Image.Image | str, path: str = "", folder: str | None = None, count: int = 3):
            pass

    pipeline = Pipeline(**kinds.make("ddpm").components)
    controls = panel_for(pipeline).actions()[0].controls
    assert set(controls) == {"image", "count", "longest_side"}
    assert type(controls["image"]).__name__ == "Picture"


def test_what_is_no_picture_is_said(tmp_path):
    class Pipeline(type(kinds.make("ddpm"))):
        def __call__(self, count: int = 3):
            return types.SimpleNamespace(scores=torch.ones(3))

    with pytest.raises(ValueError, match="no way to show a SimpleNamespace"):
        run(Pipeline(**kinds.make("ddpm").components), "Pipeline", tmp_path)


def test_pictures_shrink_and_never_grow():
    picture, mask = kinds.draw_picture((30, 10)), Image.new("L", (30, 10))
    mask.putpixel((29, 9), 255)
    assert shrink(picture, 15).size == (15, 5) and shrink(picture, 100) is picture
    assert shrink_mask(mask, 15).getpixel((14, 4)) == 255 and shrink_mask(mask, 15).getbbox() == (14, 4, 15, 5)
    assert shrink(Image.new("L", (1000, 1)), 10).size == (10, 1)
