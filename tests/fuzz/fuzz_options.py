"""Random wrong values of options, for all commands: each ends in one sentence before the training, or it is no fault.

    python -m tests.fuzz.fuzz_options --count 300 --seed 0

runs the commands with tiny networks, each with a random value for a random option, and prints the counts. It fails if
one of them

- ends in a traceback,
- says its error in more than one sentence after `error:`, or not at all,
- or fails after the training has started, for a reason that was there before.
"""

import argparse
import collections
import contextlib
import importlib
import io
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import traceback
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from diffusers_ext.training.loop.configuration import Config, JSONObject
from tests.fuzz.working_folder import working_in


TINY_UNET = json.dumps({"block_out_channels": [8, 16], "layers_per_block": 1})
DIGITS = {"dataset_name": "digits", "resolution": 8, "channels": 1, "max_train_steps": 1, "train_batch_size": 2}
SAMPLES = {"num_inference_steps": 1, "num_evaluation_samples": 8, "evaluation_batch_size": 8}
TEXT = {"resolution": 16, "max_train_steps": 1, "num_validation_images": 1, "num_inference_steps": 1}
ATTENDING_UNET = json.dumps(
    {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
    }
)
PIXELS = {"train_data_dir": "@pictures", "resolution": 8, "max_train_steps": 1, "num_inference_steps": 1}
FILMS = {
    "train_data_dir": "@films",
    "resolution": 8,
    "channels": 1,
    "num_frames": 2,
    "unet": json.dumps({"block_out_channels": [8, 16], "layers_per_block": 1}),
    "max_train_steps": 1,
    **SAMPLES,
}
TINY_ENCODER = json.dumps({"block_out_channels": [4] * 4, "layers_per_block": [1] * 4, "se_reduction": 2})
# The commands with an option class, and the options of a tiny run of each; "@name" is something that `prepare` makes.
COMMANDS = {
    "train_diffusion": {**DIGITS, **SAMPLES, "unet": TINY_UNET},
    "train_distillation": {
        "pretrained_teacher_model": "@diffusion",
        "dataset_name": "digits",
        "max_train_steps": 1,
        "train_batch_size": 2,
        "num_evaluation_samples": 8,
    },
    "train_palette": {**DIGITS, "tasks": "inpainting", "unet": TINY_UNET, "num_inference_steps": 1},
    "train_gan": {**DIGITS, "architecture": "mlp"},
    "train_singan": {
        "train_data_dir": "@photo",
        "resolution": 16,
        "min_size": 12,
        "generator": json.dumps({"layer_channels": [4]}),
        "discriminator": json.dumps({"layer_channels": [4]}),
        "max_train_steps": 1,
        "num_evaluation_samples": 2,
    },
    "train_biggan": {
        **DIGITS,
        "generator": json.dumps({"block_out_channels": [8, 8, 4], "attention_size": None, "num_truncations": 2}),
        "discriminator": json.dumps({"block_out_channels": [4, 8], "attention_size": None}),
        "statistics_batches": 1,
    },
    "train_ebgan": {**DIGITS, "generator": json.dumps({"block_out_channels": [4, 4]})},
    "train_stylegan": {
        **DIGITS,
        "generator": json.dumps({"latent_dim": 4, "style_dim": 4, "block_out_channels": [4, 4]}),
        "discriminator": json.dumps({"block_out_channels": [4, 4]}),
    },
    "train_progressive_gan": {
        **DIGITS,
        "generator": json.dumps({"latent_dim": 4, "block_out_channels": [4, 4]}),
        "discriminator": json.dumps({"block_out_channels": [4, 4]}),
        "stable_images": 1,
        "fading_images": 0,
    },
    "find_directions": {
        "pipeline": "@gan",
        "output": "found.safetensors",
        "method": "factorized",
        "num_directions": 2,
    },
    "train_inversion_encoder": {**DIGITS, "pretrained_model_name_or_path": "@gan", "encoder": TINY_ENCODER},
    "train_latent_mapper": {
        **DIGITS,
        "pretrained_model_name_or_path": "@inversion",
        "clip": "@clip",
        "prompt": "a red picture",
    },
    "train_energy": {**DIGITS, "architecture": "mlp", "num_chain_steps": 2, "num_inference_steps": 2},
    "train_density": {"dataset_name": "digits", "resolution": 8, "channels": 1, "num_levels": 17},
    "train_pixels": {**DIGITS, "num_levels": 17},
    "train_sketches": {
        "train_data_dir": "@sketches",
        "model": json.dumps({"encoder_hidden_size": 4, "decoder_hidden_size": 4, "latent_dim": 2, "num_mixtures": 2}),
        "max_train_steps": 1,
        "train_batch_size": 2,
    },
    "train_maskgit": {**DIGITS, "vae": "@vqvae", "num_evaluation_samples": 8},
    "train_image_tokens": {**DIGITS, "vae": "@vqvae", "num_evaluation_samples": 8},
    "train_autoencoder": {**DIGITS, "architecture": "mlp"},
    "train_classifier": {**DIGITS, "pretrained_model_name_or_path": "@diffusion", "num_inference_steps": 1},
    "train_translation": {**DIGITS, "method": "pix2pix", "inputs": "edges", "generator_channels": 4},
    "train_attribute_translation": {
        **DIGITS,
        "generator_channels": 4,
        "generator_options": json.dumps({"num_blocks": 1}),
        "discriminator_channels": 4,
    },
    "train_restoration": {
        **DIGITS,
        "scale": 2,
        "generator_options": json.dumps({"base_channels": 4, "num_blocks": 1}),
    },
    "train_hdr": {**DIGITS, "generator_options": json.dumps({"base_channels": 4, "num_levels": 2})},
    "train_danet": {
        **DIGITS,
        "unet_options": json.dumps({"base_channels": 4, "num_levels": 2}),
        "critic_options": json.dumps({"base_channels": 2}),
    },
    "train_multimodal_translation": {
        **DIGITS,
        "inputs": "edges",
        "generator_channels": 4,
        "discriminator_channels": 4,
    },
    "train_style": {
        "train_data_dir": "@pictures",
        "style_image": "@photo/photo.png",
        "feature_network": "@vgg",
        "generator_options": json.dumps({"block_out_channels": [4, 4], "num_blocks": 1}),
        "resolution": 16,
        "max_train_steps": 1,
        "train_batch_size": 2,
    },
    "train_spade": {
        "train_data_dir": "@label_maps",
        "conditioning_image_column": "conditioning_image",
        "conditioning_num_labels": 5,
        "label_column": "none",
        "resolution": 16,
        "channels": 1,
        "generator_channels": 2,
        "max_train_steps": 1,
        "train_batch_size": 2,
    },
    "train_text_to_image": {**TEXT, "pretrained_model_name_or_path": "@base", "train_data_dir": "@pictures"},
    "train_textual_inversion": {
        **TEXT,
        "pretrained_model_name_or_path": "@base",
        "train_data_dir": "@pictures",
        "placeholder_token": "<cat>",
    },
    "train_dreambooth": {
        **TEXT,
        "pretrained_model_name_or_path": "@base",
        "instance_data_dir": "@pictures",
        "instance_prompt": "a cat",
        "lora_rank": 2,
    },
    "train_controlnet": {
        **TEXT,
        "pretrained_model_name_or_path": "@base",
        "train_data_dir": "@pictures",
        "condition": "blur",
    },
    "train_clip": {
        "train_data_dir": "@pictures",
        "text_config": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2},
        "vision_config": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2},
    },
    "train_text_to_pixels": {**PIXELS, "unet": ATTENDING_UNET},
    "train_text_super_resolution": {**PIXELS, "unet": ATTENDING_UNET},
    "train_text_inpainting": {**PIXELS, "pretrained_model_name_or_path": "@text_to_pixels"},
    "train_video_gan": {
        "train_data_dir": "@films",
        "resolution": 8,
        "channels": 1,
        "num_frames": 2,
        "num_sampled_frames": 1,
        "generator": json.dumps({"latent_dim": 4, "block_out_channels": [4]}),
        "spatial_discriminator": json.dumps({"block_out_channels": [4]}),
        "temporal_discriminator": json.dumps({"block_out_channels": [4], "num_3d_blocks": 1}),
        "max_train_steps": 1,
        "train_batch_size": 2,
    },
    "train_video": FILMS,
    "train_video_super_resolution": FILMS,
    "train_prior": {**SAMPLES, "resolution": 8, "clip": "@clip", "train_data_dir": "@pictures", "max_train_steps": 1},
    "train_unclip_decoder": {
        **SAMPLES,
        "resolution": 8,
        "clip": "@clip",
        "train_data_dir": "@pictures",
        "max_train_steps": 1,
    },
    "evaluate_pipeline": {
        "pretrained_model_name_or_path": "@diffusion",
        "dataset_name": "digits",
        "feature_extractor": "digits",
        **SAMPLES,
    },
}
# The option classes that are defined elsewhere.
CONFIGS = {
    "train_text_to_image": "FineTuningConfig",
    "train_text_to_pixels": "TextDiffusionConfig",
    "train_translation": "TranslationConfig",
}

TEXTS = ["", " ", "nonsense", "no/where", "/proc/no/folder", "a:b", "None", "0", "é\u0301", "x" * 300, "--", "%s"]
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e400", "1e-400", "two", "", "1.5", "[1]", "-0.5", "True"]
JSONS = [
    "{",
    "[]",
    "3",
    "null",
    '{"unknown": 1}',
    '"text"',
    '{"a": {"b": 1}}',
    '{"": 0}',
    "{}",
    "a: b",
]


@dataclass
class Outcome:
    """What became of one command.

    Attributes:
        command, option, value: what was run.
        kind: "refused", "accepted" or "fault".
        text: its error, or the fault.
    """

    command: str
    option: str
    value: str
    kind: str
    text: str


def option_kinds(command: str) -> dict[str, object]:
    """The options of a command that can be wrong, and their types."""
    if command == "find_directions":  # which has no class of options
        actions = importlib.import_module("diffusers_ext.training.find_directions").build_parser()._actions
        return {action.dest: action.type for action in actions if action.dest not in ("help", "output")}
    own = config_class(command)
    hints = typing.get_type_hints(own)
    return {field.name: hints[field.name] for field in fields(own) if field.name not in ("output_dir", "report_to")}


def config_class(command: str) -> type[Config]:
    module = importlib.import_module(f"diffusers_ext.training.{command}")
    if command in CONFIGS:
        return getattr(module, CONFIGS[command])
    return defined_in(module, "Config")


def defined_in(module, ending: str) -> type:
    """The last class of a command's file with such a name."""
    return [v for name, v in vars(module).items() if name.endswith(ending) and v.__module__ == module.__name__][-1]


def wrong_value(kind: object, generator: random.Random) -> str:
    """A value that an option of this type probably can't have."""
    text = str(kind)
    if JSONObject.__name__ in text:
        keys = ["block_out_channels", "hidden_dims", "latent_dim", "dropout", "sample_size", "in_channels", "strength"]
        values = [0, -1, "x", [], [0], None, 1e9, {}, True, [[1]], 0.5]
        made = json.dumps({generator.choice(keys): generator.choice(values)})
        return generator.choice([*JSONS, *[made] * len(JSONS)])
    if "int" in text or "float" in text:
        return generator.choice(NUMBERS)
    if "bool" in text:
        return generator.choice(["maybe", "2", "", "yes please"])
    return generator.choice(TEXTS)


def cases(count: int, seed: int, commands: list[str]) -> list[tuple[str, str, str]]:
    """(command, option, value), different ones; first a right value for each command."""
    generator, chosen = random.Random(seed), {(command, "seed", "1"): None for command in commands}
    while len(chosen) < count + len(commands):
        command = generator.choice(commands)
        kinds = option_kinds(command)
        option = generator.choice(list(kinds))
        chosen[command, option, wrong_value(kinds[option], generator)] = None
    return list(chosen)


def prepare(folder: Path) -> None:
    """What the tiny runs need."""
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
    from PIL import Image

    from diffusers_ext import (
        ClassConditionalPipeline,
        GANInversionPipeline,
        GANPipeline,
        TextToImagePixelPipeline,
        VQVAEModel,
    )
    from diffusers_ext.models import VGG, StyleEncoder, StyleGAN2Generator
    from tests.pipelines.tiny_text import tiny_text_encoder, tiny_text_unet, tiny_tokenizer
    from tests.tiny_clip import save_tiny_clip
    from tests.tiny_films import write_captioned_films
    from tests.tiny_label_maps import write_label_maps
    from tests.tiny_sketches import write_stairs
    from tests.tiny_unet import tiny_unet
    from tests.training.text_to_image_models import captioned_images, tiny_base

    unet = tiny_unet(in_channels=1, out_channels=1)
    diffusion = ClassConditionalPipeline(unet, DDIMScheduler(), default_num_inference_steps=2)
    diffusion.save_pretrained(folder / "diffusion")
    tokenizer = tiny_tokenizer()
    TextToImagePixelPipeline(
        tiny_text_unet(),
        FlowMatchEulerDiscreteScheduler(),
        tokenizer,
        tiny_text_encoder(len(tokenizer)),
    ).save_pretrained(folder / "text_to_pixels")
    VQVAEModel(8, 1, num_embeddings=4, embedding_dim=2, hidden_channels=4).save_pretrained(folder / "vqvae")
    generator = StyleGAN2Generator(8, 1, 4, 4, block_out_channels=(4, 4), num_mapping_layers=1)
    GANPipeline(generator).save_pretrained(folder / "gan")
    encoder = StyleEncoder(32, 1, generator.num_styles, generator.config.style_dim, **json.loads(TINY_ENCODER))
    GANInversionPipeline(generator, encoder).save_pretrained(folder / "inversion")
    VGG((4, 4), (1, 2)).save_pretrained(folder / "vgg")
    captioned_images(folder / "pictures", 3)
    (folder / "photo").mkdir()
    Image.new("RGB", (20, 16), "olive").save(folder / "photo" / "photo.png")
    write_captioned_films(folder / "films", 3)
    write_label_maps(folder / "label_maps", 3, 5)
    save_tiny_clip(folder / "clip")
    write_stairs(folder / "sketches")
    shutil.copytree(tiny_base("sd1"), folder / "base")


def run_case(folder: Path, number: int, case: tuple[str, str, str]) -> Outcome:
    """One command, in this process, with `folder` as current folder: a random `--cache_dir` is written there."""
    command, option, value = case
    module = importlib.import_module(f"diffusers_ext.training.{command}")
    options = {name: str(entry) for name, entry in COMMANDS[command].items()} | {option: value}
    options = {name: str(folder / entry[1:]) if entry.startswith("@") else entry for name, entry in options.items()}
    written = folder / f"run-{number}"
    if command == "evaluate_pipeline":
        options["output_file"] = str(written / "rows.json")
    elif command != "find_directions":
        options["output_dir"] = str(written)
    placed = [options.pop(name) for name in ("pipeline", "output") if name in options]  # without a name
    arguments = placed + [f"--{name}={entry}" for name, entry in options.items()]
    output, status = io.StringIO(), 0
    with working_in(folder), contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
        try:
            if command in ("evaluate_pipeline", "find_directions"):
                module.main(arguments)
            else:
                from diffusers_ext.training.loop.command import run

                run(recipe_builder(module, command), config_class(command), arguments)
        except SystemExit as stopped:
            status = stopped.code or 0
        except BaseException:
            return Outcome(*case, "fault", traceback.format_exc())
    errors = output.getvalue().partition("error: ")[2].strip()
    if status == 0:
        return Outcome(*case, "accepted", "")
    if (option, value) == ("seed", "1"):
        return Outcome(*case, "fault", f"a right value is refused: {errors}")
    if status != 2:
        return Outcome(*case, "fault", f"it failed with {status}, after it had started: {errors}")
    if not errors or "Traceback" in output.getvalue():
        return Outcome(*case, "fault", output.getvalue())
    return Outcome(*case, "refused", errors)


def recipe_builder(module, command: str):
    """What the last line of a command runs."""
    if command == "train_text_to_image":
        return module.FineTuningRecipe
    if command == "train_image_tokens":
        return module.image_token_recipe
    with_a_function = ("train_autoencoder", "train_distillation", "train_multimodal_translation", "train_style")
    if command in (*with_a_function, "train_translation"):
        return getattr(module, command.removeprefix("train_") + "_recipe")
    return defined_in(module, "Recipe")


def fuzz_options(count: int, seed: int = 0, processes: int = 2, commands: list[str] | None = None) -> list[Outcome]:
    """Run some of the commands, or of all, `count` times, each time in a process of its own."""
    commands = commands or list(COMMANDS)
    with tempfile.TemporaryDirectory() as folder:
        folder, chosen = Path(folder), cases(count, seed, commands)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"diffusers_ext.training.{command}" for command in commands])
        with context.Pool(processes, initializer=settle, initargs=(folder,), maxtasksperchild=1) as pool:
            pool.apply(prepare, (folder,))
            numbered = [(folder, number, case) for number, case in enumerate(chosen)]
            return pool.starmap(run_case, numbered, chunksize=1)


def settle(folder: Path) -> None:
    """A process whose caches are in `folder`."""
    import os

    import huggingface_hub.constants
    import torch

    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    huggingface_hub.constants.HF_ASSETS_CACHE = str(folder / "assets")


def report(outcomes: list[Outcome]) -> str:
    """The counts, and the faults."""
    counts = collections.Counter((outcome.command, outcome.kind) for outcome in outcomes)
    lines = [f"{command:<26} {kind:<9} {number:4}" for (command, kind), number in sorted(counts.items())]
    for outcome in outcomes:
        if outcome.kind == "fault":
            lines.append(f"\n{outcome.command} --{outcome.option}={outcome.value!r}:\n{outcome.text}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, help="Only these.")
    parser.add_argument("--show", action="store_true", help="Print every error.")
    arguments = parser.parse_args()
    outcomes = fuzz_options(arguments.count, arguments.seed, commands=arguments.commands)
    if arguments.show:
        print(*(f"{o.command} --{o.option}={o.value!r}: {o.kind} {o.text}" for o in outcomes), sep="\n")
    print(report(outcomes))
    sys.exit(any(outcome.kind == "fault" for outcome in outcomes))


if __name__ == "__main__":
    main()
