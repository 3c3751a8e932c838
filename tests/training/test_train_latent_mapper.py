"""A latent mapper learns to move images to a prompt, resumes and is published; and what does not fit is refused."""

import shutil

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANInversionPipeline
from diffusers_ext.models import StyleEncoder, StyleGAN2Generator
from diffusers_ext.pipelines import StyleCLIPMapperPipeline
from diffusers_ext.pipelines.clip_scores import embed_views
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_latent_mapper import LatentMapperConfig, LatentMapperRecipe
from tests.tiny_clip import save_tiny_clip
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps, tensors, train_in_processes, weights


OPTIONS = {
    "dataset_name": "digits",
    "validation_split": "test",
    "resolution": [8],
    "channels": 1,
    "prompt": "a red picture",
    "mapper": {"num_layers": 1},
    "learning_rate": 0.1,
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "num_evaluation_samples": 20,
}


@pytest.fixture(scope="module", autouse=True)
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    generator = StyleGAN2Generator(8, 1, 5, 6, block_out_channels=(6, 4), num_mapping_layers=1)
    encoder = StyleEncoder(32, 1, 4, 6, "w", (4, 4, 4, 4), (1, 1, 1, 1))
    GANInversionPipeline(generator, encoder).save_pretrained(folder / "gan")
    save_tiny_clip(folder / "clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "pretrained_model_name_or_path", str(folder / "gan"))
        patch.setitem(OPTIONS, "clip", str(folder / "clip"))
        yield folder


def trainer(output_dir, **options) -> Trainer:
    config = LatentMapperConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})
    return runs.trainer(LatentMapperRecipe, config)


def test_the_mapper_learns_and_the_others_stay(tmp_path):
    run = trainer(tmp_path, latent_weight=0.01, learning_rate=5.0)
    frozen = [run.recipe.generator, run.recipe.encoder, run.recipe.clip]
    before = [weights(network) for network in frozen]
    images = torch.randint(256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def cosine() -> torch.Tensor:
        recipe = run.recipe
        edited = recipe.edit(recipe.pipeline(run.networks["mapper"].eval()), images)[1]
        return (embed_views(recipe.clip, recipe.image_processor, edited) @ recipe.text.T).mean()

    first = cosine()
    found = steps(run, 4)
    assert cosine() > first and {"clip_distance", "squared_moves"} <= found[0].keys()
    assert all(torch.equal(weights(network), kept) for network, kept in zip(frozen, before, strict=True))


@pytest.mark.slow
def test_a_resumed_run_is_the_same_bit_for_bit_and_leaves_a_pipeline(tmp_path):
    assert_resumes_exactly(trainer, tmp_path, stop=2, end=4)

    pipe = StyleCLIPMapperPipeline.from_pretrained(tmp_path / "whole")
    assert pipe.config.prompt == "a red picture"
    assert "latent mapper" in (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path / "whole", trust_remote_code=True)
    images = [each(torch.zeros(1, 6), output_type="pt").images for each in (pipe, other)]
    torch.testing.assert_close(*images)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    for processes in (1, 2):
        train_in_processes("train_latent_mapper", OPTIONS, tmp_path / str(processes), processes)
    one, two = tensors(tmp_path / "1", 4), tensors(tmp_path / "2", 4)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt": "  "}, "--prompt is required"),
        ({"clip": None}, "--clip is required"),
        ({"clip": "./nonsense"}, "--clip: ./nonsense is no CLIPModel of transformers"),
        ({"latent_weight": -1.0}, "--latent_weight"),
        ({"perceptual_network": "x"}, "--perceptual_network is for --perceptual_weight above 0"),
        ({"metrics": ["fid"]}, "--metrics is for other recipes"),
        ({"resolution": [16]}, "makes images of the shape"),
        ({"mapper": {"levels": ["fine"]}}, "--mapper: .*`levels` must be one or more of coarse"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)


def test_an_inversion_without_an_encoder_is_refused(tmp_path, pretrained):
    pipe = GANInversionPipeline.from_pretrained(pretrained / "gan")
    GANInversionPipeline(pipe.generator).save_pretrained(tmp_path / "gan")
    with pytest.raises(ValueError, match="has no encoder, which finds the styles of images"):
        trainer(tmp_path, pretrained_model_name_or_path=str(tmp_path / "gan"))


def test_models_that_there_are_not_are_named_by_their_options(tmp_path, pretrained):
    (tmp_path / "empty").mkdir()
    for name, reason in ((tmp_path / "empty", "is no pipeline"), (pretrained / "clip", "is no pipeline")):
        with pytest.raises(OSError, match=f"--pretrained_model_name_or_path {name} {reason}"):
            trainer(tmp_path / "out", pretrained_model_name_or_path=str(name))
    shutil.copytree(pretrained / "clip", tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="--clip: there is no image processor in"):
        trainer(tmp_path / "out", clip=str(tmp_path / "clip"))
