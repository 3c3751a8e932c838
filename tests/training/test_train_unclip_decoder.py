"""The decoder of unCLIP: what a run leaves, exact resume, processes that train like one, and what is refused."""

import json

import pytest
import torch
from PIL import Image

from diffusers_ext.pipelines import UnCLIPPixelPipeline
from diffusers_ext.training.train_prior import PriorConfig, PriorRecipe
from diffusers_ext.training.train_unclip_decoder import UnCLIPDecoderConfig, UnCLIPDecoderRecipe
from tests.tiny_clip import SIZE, save_tiny_clip, write_pictures
from tests.training.runs import context, records, steps, tensors, trainer
from tests.training.test_train_prior import OPTIONS as PRIOR_OPTIONS
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


DECODER = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 8,
}
OPTIONS = {
    "resolution": [SIZE],
    "decoder": DECODER,
    "train_batch_size": 4,
    "max_train_steps": 3,
    "checkpointing_steps": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_evaluation_samples": 4,
    "num_inference_steps": 2,
    "guidance_scales": [2.0],
}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data = {"train_data_dir": write_pictures(folder / "pictures"), "clip": save_tiny_clip(folder / "clip")}
    prior = PriorConfig(**{**PRIOR_OPTIONS, **data, "max_train_steps": 1, "output_dir": str(folder / "prior")})
    assert trainer(PriorRecipe, prior).train()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**data, "prior_model": prior.output_dir}.items():
            patch.setitem(OPTIONS, name, value)
        yield


def configuration(output_dir, **options) -> UnCLIPDecoderConfig:
    return UnCLIPDecoderConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unclip"
    assert trainer(UnCLIPDecoderRecipe, configuration(folder)).train()
    return folder


def test_a_run_leaves_a_pipeline_and_its_measures(trained):
    (row,) = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert {"variation_cosine", "prompt_cosine"} <= set(row) and row["guidance_scale"] == 2.0
    pipe = UnCLIPPixelPipeline.from_pretrained(trained)
    assert pipe("a red picture", num_images_per_prompt=2).images[0].size == (SIZE, SIZE)
    assert pipe(image=Image.new("RGB", (SIZE, SIZE))).images[0].size == (SIZE, SIZE)
    assert pipe.config.default_num_inference_steps == 2
    with Image.open(trained / "samples.png") as grid:
        assert grid.width > 300
    assert "variations = pipe(image=image" in (trained / "README.md").read_text()


def test_a_resumed_run_is_the_same(trained, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers_ext.training.loop.outputs.Outputs.write", lambda *arguments: None)
        assert trainer(UnCLIPDecoderRecipe, configuration(tmp_path, max_train_steps=2)).train()
        assert trainer(UnCLIPDecoderRecipe, configuration(tmp_path, resume_from_checkpoint="latest")).train()
    expected, found = tensors(trained, 3), tensors(tmp_path, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_learns(tmp_path):
    options = {"train_batch_size": 12, "prior_model": None, "embedding_dropout": 0.0}
    job = trainer(UnCLIPDecoderRecipe, configuration(tmp_path, **options))
    losses = [values["decoder_loss"] for values in steps(job, 40)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_step_reads_no_value(tmp_path):
    assert not waits_of_an_update(trainer(UnCLIPDecoderRecipe, configuration(tmp_path)))


def test_hidden_embeddings_train_the_one_of_none(tmp_path):
    def gradient(embedding_dropout: float) -> torch.Tensor:
        job = trainer(UnCLIPDecoderRecipe, configuration(tmp_path, embedding_dropout=embedding_dropout))
        parameter = job.networks["conditioner"].learned_classifier_free_guidance_embeddings
        before = parameter.detach().clone()
        job.start()
        job.update()
        return parameter.detach() - before

    assert gradient(1.0).any() and not gradient(0.0).any()


def test_what_is_refused(tmp_path):
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            UnCLIPDecoderRecipe(configuration(tmp_path, **options), context()).networks()

    refused("--clip is required", clip=None)
    refused("--resolution must be square for unCLIP, not 8x16", resolution=[8, 16])
    refused("--embedding_dropout must be from 0 to 1", embedding_dropout=1.5)
    refused("--decoder: UNet2DConditionModel has no argument 'depth'", decoder={"depth": 2})
    other = save_tiny_clip(tmp_path / "other", seed=1)
    refused("--prior_model: .* is a prior for another CLIP than --clip", clip=other)
    with pytest.raises(OSError, match="--prior_model .*/other is no pipeline"):
        UnCLIPDecoderRecipe(configuration(tmp_path, prior_model=other), context())


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    options = {**OPTIONS, "decoder": json.dumps(DECODER)}
    one, two = run_on_one_and_two_processes("train_unclip_decoder", options, tmp_path)
    for first, second in zip(records(one), records(two), strict=True):
        for name in ("loss", "grad_norm"):
            if name in first:
                assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-6)
