"""A trained model on the Hub, and nothing but the model."""

from tests.training.runs import arguments


TRAIN = """
from diffusers_ext.training.loop.command import run
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
run(DiffusionRecipe, DiffusionConfig, command_line)
"""
SAMPLE = """
import torch
pipe = {load}
generator = torch.Generator().manual_seed(0)
result = pipe(["three"], num_inference_steps=2, generator=generator, output_type="np").images.tolist()
"""


def test_a_training_run_is_published_and_read_in_both_ways(hub, alice, bob, tmp_path):
    command_line = arguments(tmp_path, max_train_steps=2, push_to_hub=True, hub_model_id="alice/tiny", license="mit")
    alice.run(TRAIN, command_line=[*command_line, "--hub_token=hf_alice"])
    published = hub.files("alice/tiny")
    assert set(published) == {
        ".gitattributes",
        "README.md",
        "metrics.json",
        "model_index.json",
        "pipeline_class_conditional.py",
        "samples.png",
        "scheduler/scheduler_config.json",
        "training_config.yaml",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert not any(b"hf_alice" in content for content in published.values())
    card = published["README.md"].decode()
    assert 'from_pretrained("alice/tiny")' in card and "license: mit" in card and "digits" in card

    with_package = 'diffusers_ext.ClassConditionalPipeline.from_pretrained("alice/tiny")'
    ours = alice.run("import diffusers_ext" + SAMPLE.format(load=with_package))
    alone = 'diffusers.DiffusionPipeline.from_pretrained("alice/tiny", trust_remote_code=True)'
    theirs = bob.run("import diffusers" + SAMPLE.format(load=alone))
    assert ours == theirs
