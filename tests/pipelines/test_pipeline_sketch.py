import re

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext import SketchPipeline as PublishedPipeline
from diffusers_ext.models import LeNet, SketchRNN
from diffusers_ext.pipelines.pipeline_sketch import SketchPipeline
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    generators,
)


NAMES = {0: "cat", 1: "dog", 2: "sheep"}
# a square and a dot
SQUARE = [[0, 0, 0], [30, 0, 0], [0, 30, 0], [-30, 0, 0], [0, -30, 1], [15, 15, 1]]


def make_model(**options) -> SketchRNN:
    torch.manual_seed(0)
    small = {"encoder_hidden_size": 6, "decoder_hidden_size": 8, "latent_dim": 4, "num_mixtures": 3, "max_length": 20}
    model = SketchRNN(**{**small, "offset_std": 12.0, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.to_parameters.bias[2] = -3.0  # sketches do not end at once
    return model


class SketchConfig(PipelineTesterConfig):
    pipeline_class = SketchPipeline
    output_shape = (3, 1, 32, 32)
    latents_shape = (3, 4)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {"model": make_model(num_classes=3), "id2label": NAMES}

    def get_inputs(self):
        return {"class_labels": [2, "cat", 2], "image_size": 32}


class DecoderConfig(SketchConfig):
    batch_params = ()
    num_images_param = None

    def get_components(self):
        return {"model": make_model(latent_dim=None)}

    def get_inputs(self):
        return {"batch_size": 3, "image_size": 32}


class TestOutput(SketchConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(SketchConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(SketchConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(SketchConfig, PipelineBatchTesterMixin):
    pass


class TestDtype(SketchConfig, PipelineDtypeTesterMixin):
    test_latents_stay_in_float32 = None  # there is no callback
    test_bfloat16_network_draws_nearly_the_same = None  # a point can go another way, and all points after it


class TestDecoderOutput(DecoderConfig, PipelineOutputTesterMixin):
    pass


class TestDecoderSaveLoad(DecoderConfig, PipelineSaveLoadTesterMixin):
    pass


def make_pipeline(**options) -> SketchPipeline:
    pipe = SketchPipeline(make_model(**options))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, seed: int = 0, **arguments):
    return pipe(generator=torch.Generator().manual_seed(seed), **{"output_type": "svg", **arguments})


def test_a_published_pipeline_loads_in_both_ways(tmp_path):
    pipe = PublishedPipeline(make_model(), id2label=None)
    pipe.save_pretrained(tmp_path)
    loaded = PublishedPipeline.from_pretrained(tmp_path)
    alone = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(alone).__module__ != type(loaded).__module__
    assert draw(alone, batch_size=2).images == draw(loaded, batch_size=2).images == draw(pipe, batch_size=2).images
    torch.testing.assert_close(alone.encode(SQUARE), pipe.encode(SQUARE))


def test_a_sketch_depends_on_its_generator_alone():
    pipe = make_pipeline()
    together = pipe(batch_size=3, generator=generators(range(3)), output_type="svg").images
    assert len(set(together)) == 3
    assert pipe(batch_size=1, generator=generators([1]), output_type="svg").images == together[1:2]


def test_strokes_are_in_the_units_of_the_data_and_end():
    pipe = make_pipeline()
    strokes = draw(pipe, batch_size=8).strokes
    assert len({len(points) for points in strokes}) > 1
    for points in strokes:
        assert len(points) <= 20 and points.shape[1:] == (3,)
        assert set(points[:, 2].tolist()) <= {0.0, 1.0} and (points[-1:, 2] == 1).all()
    pipe.model.register_to_config(offset_std=24.0)
    for points, doubled in zip(strokes, draw(pipe, batch_size=8).strokes, strict=True):
        torch.testing.assert_close(doubled[:, :2], 2 * points[:, :2])


def test_a_sketch_that_ends_at_once_is_blank():
    pipe = make_pipeline()
    with torch.no_grad():
        pipe.model.to_parameters.bias[2] = 100.0
    output = draw(pipe, output_type="np", image_size=8)
    assert output.strokes[0].shape == (0, 3) and (output.images == 1).all()
    assert 'd=""' in draw(pipe).images[0]


def test_begun_sketches_are_completed():
    pipe = make_pipeline()
    begun = torch.tensor(SQUARE[:5], dtype=torch.float32)
    strokes = draw(pipe, batch_size=4, sketch=begun).strokes
    assert len({tuple(points.flatten().tolist()) for points in strokes}) == 4
    for points in strokes:
        torch.testing.assert_close(points[:5], begun)
    several = pipe(sketch=[SQUARE[:2], SQUARE[:5]], generator=generators([0, 1])).strokes
    torch.testing.assert_close(several[0][:2, :2], begun[:2, :2])
    # a completion depends on the begun sketch
    changed = draw(pipe, batch_size=4, sketch=begun * torch.tensor([-1, 1, 1])).strokes
    assert any(
        one.shape != other.shape or not torch.allclose(one[5:], other[5:])
        for one, other in zip(strokes, changed, strict=True)
    )


def test_latents_are_encoded_reconstructed_and_interpolated():
    pipe = make_pipeline()
    other = [[0, 0, 0], [20, 40, 1]]
    latents = pipe.encode([SQUARE, other])
    assert latents.shape == (2, 4) and latents.dtype == torch.float32
    torch.testing.assert_close(pipe.encode(other), latents[1:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pipe.encode(np.array(other)), latents[1:], rtol=1e-5, atol=1e-6)
    mean, _ = pipe.model.encode(*pipe._to_stroke5([torch.tensor(SQUARE).float()], torch.device("cpu")))
    torch.testing.assert_close(mean, latents[:1], rtol=1e-5, atol=1e-6)

    def call(function, *sketches, **arguments):
        return function(*sketches, generator=generators(range(3)), output_type="svg", **arguments).images

    walk = call(pipe.interpolate, SQUARE, other, num_steps=3)
    rebuilt = call(pipe.reconstruct, [SQUARE, SQUARE, other])
    assert walk[0] == rebuilt[0] and walk[2] == rebuilt[2] and len(set(walk)) == 3
    assert call(pipe, latents=latents[[0, 0, 1]]) == rebuilt
    assert call(pipe, latents=2 * latents[[0, 0, 1]] - latents[[1]]) != rebuilt


def test_a_low_temperature_draws_alike():
    pipe = make_pipeline()
    latents = torch.zeros(9, 4)

    def spread(temperature):
        strokes = draw(pipe, latents=latents, temperature=temperature).strokes
        return torch.stack([points[0, :2] for points in strokes if len(points)]).std(dim=0).mean()

    assert spread(0.001) < 0.2 * spread(1.0)


def test_pictures_and_svg_show_the_same_lines():
    pipe = make_pipeline()
    output = pipe(sketch=SQUARE, generator=torch.Generator().manual_seed(0), image_size=200)
    (picture,) = output.images
    assert isinstance(picture, Image.Image) and picture.mode == "L" and picture.size == (200, 200)
    (svg,) = draw(pipe, sketch=SQUARE, image_size=200).images
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg" width="200" height="200"')
    places = np.array(re.findall(r"(-?[\d.]+),(-?[\d.]+)", svg), dtype=float)
    assert places.min() == pytest.approx(20, abs=0.1) and places.max() == pytest.approx(180, abs=0.1)
    assert all(np.array(picture)[round(y - 0.5), round(x - 0.5)] < 128 for x, y in places)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"class_labels": 1}, "`class_labels` must be left out"),
        ({"temperature": 0}, "`temperature` must be a positive number"),
        ({"output_type": "latent"}, "`output_type` must be one of pil, svg, np, pt"),
        ({"image_size": 4}, "`image_size` must be an integer of at least 8"),
        ({"latents": torch.zeros(2, 5)}, r"`latents` must be a tensor of the shape \(2, 4\)"),
        ({"sketch": [[1, 2]]}, "must be points"),
        ({"sketch": []}, "`sketch` must be a sketch"),
        ({"sketch": "cat"}, "`sketch` must be a sketch"),
        ({"sketch": [[[1, 2, 0], [3, 4]]]}, "`sketch`"),
        ({"sketch": [[1.0, 2.0, 0.5]]}, "where `lifted` is 0 or 1"),
        ({"sketch": [[1, 0, 0]] * 21}, "`sketch` may have at most 20 points each, but one has 21"),
        ({"sketch": [SQUARE, SQUARE], "batch_size": 3}, "must be one sketch or 3"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline()(**arguments)


def test_questions_that_the_network_does_not_answer():
    pipe = make_pipeline(latent_dim=None)
    with pytest.raises(ValueError, match="can't encode sketches: its network is a decoder alone"):
        pipe.interpolate(SQUARE, SQUARE)
    with pytest.raises(ValueError, match="can't use `latents`"):
        pipe(latents=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="one sketch each"):
        make_pipeline().interpolate([SQUARE, SQUARE], SQUARE)
    with pytest.raises(ValueError, match="`model` must be a SketchRNN.*, but is a LeNet"):
        SketchPipeline(LeNet())
