import pytest
import torch
from diffusers import DDIMScheduler

from diffusers_ext import (
    ClassConditionalPipeline,
)
from diffusers_ext.training.loop.sampling import Generation
from tests.tiny_unet import tiny_unet
from tests.training.runs import context


@pytest.fixture(scope="module")
def pipeline():
    unet = tiny_unet(in_channels=1, out_channels=1, num_class_embeds=11)
    names = dict(enumerate("zero one two three four five six seven eight nine".split()))
    pipe = ClassConditionalPipeline(unet, DDIMScheduler(), id2label=names, null_class_label=10)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_an_image_does_not_depend_on_the_batch_size(pipeline):
    machine = context()
    labels = [index % 10 for index in range(7)]
    whole, parts = (
        Generation(pipeline, machine, seed=3, batch_size=size).images(7, labels, num_inference_steps=2)
        for size in (7, 3)
    )
    assert whole.dtype == torch.uint8 and whole.shape == (7, 1, 8, 8)
    assert (whole.int() - parts.int()).abs().max() <= 1
    other = Generation(pipeline, machine, seed=4, batch_size=7).images(7, labels, num_inference_steps=2)
    assert not torch.equal(whole, other)
