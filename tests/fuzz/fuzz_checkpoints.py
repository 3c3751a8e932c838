"""Mutated checkpoints and mutated LoRA files: each ends in one sentence or in a right result.

    python -m tests.fuzz.fuzz_checkpoints

prints how many there were of either, and the faults. Whatever happens, no code in a file is executed, the file and its
neighbours stay as they were, and a refusal leaves nothing behind.
"""

import collections
import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from diffusers.utils import convert_state_dict_to_kohya
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from diffusers_ext.converters.__main__ import main
from diffusers_ext.converters.kohya import convert_lora_file
from tests.converters.cases import CLASS_COND, load_case
from tests.converters.test_kohya import pipeline, random_adapters
from tests.fuzz.working_folder import working_in


Tensors = dict[str, torch.Tensor]
# What must become of a mutated file. "as read" is the result for the tensors that PyTorch or safetensors reads in it,
# or a refusal: not every format has checksums that show a mutation.
Fate = Literal["refused", "as before", "as read"]
EXECUTED = "executed"  # the folder that code in a file would make
WEIGHTS, NOTES = ".safetensors", "lora_adapter_metadata"


class Code:
    """An object that runs code when it is unpickled without care."""

    def __reduce__(self):
        return os.mkdir, (EXECUTED,)


@dataclass
class Mutation:
    name: str
    fate: Fate
    write: Callable[[Path], None]  # the mutated file


@dataclass
class Outcome:
    name: str
    is_refused: bool
    fault: str = ""  # empty for a sentence, and for a right result


@dataclass
class Job:
    """How a kind of file is converted.

    Args:
        convert (`Callable`): `convert(file, output)` returns the sentence of a refusal, or nothing.
        copy_as_read (`Callable`): `copy_as_read(file, clean)` writes what a reader sees in a file to another one.
        expected (`dict`): the result for the file before it was mutated.
    """

    convert: Callable[[Path, Path], str | None]
    copy_as_read: Callable[[Path, Path], None]
    expected: dict


def judge(mutation: Mutation, job: Job, file: Path) -> Outcome:
    """Converts a mutated file in a folder of its own, and compares what becomes of it with what must."""
    folder, output = file.parent, file.parent / "output"
    folder.mkdir()
    mutation.write(file)
    (folder / "neighbour.txt").write_text("stays")
    files = contents(folder)
    try:
        with working_in(folder):
            sentence = job.convert(file, output)
    except BaseException as error:  # a traceback, whatever the error is
        return Outcome(mutation.name, True, f"no sentence: {''.join(traceback.format_exception(error)[-2:])}")
    outcome = Outcome(mutation.name, sentence is not None)
    kept = {name: content for name, content in contents(folder).items() if not name.startswith("output/")}
    if (folder / EXECUTED).exists():
        outcome.fault = "code was executed"
    elif kept != files:
        outcome.fault = "other files changed"
    elif sentence is not None:
        if output.exists():
            outcome.fault = "a refusal left something behind"
        elif not sentence or "\n" in sentence:
            outcome.fault = f"no sentence: {sentence!r}"
        elif mutation.fate == "as before":
            outcome.fault = f"a good file was refused: {sentence}"
    elif mutation.fate == "refused":
        outcome.fault = "it was not refused"
    else:
        expected = job.expected
        if mutation.fate == "as read":
            clean = folder / f"clean{file.suffix}"
            job.copy_as_read(file, clean)
            job.convert(clean, folder / "expected")
            expected = contents(folder / "expected")
        if contents(output) != expected:
            outcome.fault = "the result is wrong"
    return outcome


def contents(folder: Path) -> dict[str, object]:
    """All files of a folder by name: of safetensors files the tensors and the notes, and of others the bytes."""
    return {str(path.relative_to(folder)): content(path) for path in folder.rglob("*") if path.is_file()}


def content(file: Path) -> object:
    try:
        with safe_open(file, "pt") as opened:
            tensors, notes = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    found = {key: (str(value.dtype), tuple(value.shape), _bytes(value)) for key, value in tensors.items()}
    # The order of layers in a description means nothing.
    return found, {key: sorted(re.findall(r"[^][{}, ]+", value)) for key, value in notes.items()}


def _bytes(value: torch.Tensor) -> bytes:
    return value.reshape(-1).view(torch.uint8).numpy().tobytes()  # unlike its numbers, NaN equals itself in them


# Mutations


def tensor_mutations(tensors: Tensors, dice: random.Random) -> dict[str, Tensors]:
    """Tensors that must be refused. One of those in the middle changes, on which the others depend."""
    matrices = [key for key, value in tensors.items() if value.ndim >= 2]
    chosen = dice.choice(matrices[len(matrices) // 4 : -len(matrices) // 4])
    value = tensors[chosen]
    return {
        "a tensor is missing": {key: other for key, other in tensors.items() if key != chosen},
        "a tensor has another name": {f"{key}_" if key == chosen else key: other for key, other in tensors.items()},
        "there is one more tensor": {**tensors, "something.weight": torch.ones(3)},
        "a tensor is longer": {**tensors, chosen: torch.cat([value] * 2)},
        "a tensor is wider": {**tensors, chosen: torch.cat([value] * 2, dim=1)},
        "a tensor is empty": {**tensors, chosen: value[:0]},
        "a tensor is one number": {**tensors, chosen: value.flatten()[0]},
        "a tensor has one dimension": {**tensors, chosen: value.flatten()},
        "a tensor has NaN": {**tensors, chosen: torch.where(value == value.max(), torch.nan, value)},
        "a tensor is infinite": {**tensors, chosen: value.abs() * torch.inf},
        "a tensor holds integers": {**tensors, chosen: value.int()},
    }


def flip(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3, 20))):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def flip_at_the_start(content: bytearray, dice: random.Random) -> None:
    content[dice.randrange(min(400, len(content)))] ^= 1 << dice.randrange(8)


def flip_at_the_end(content: bytearray, dice: random.Random) -> None:
    content[-1 - dice.randrange(min(400, len(content)))] ^= 1 << dice.randrange(8)


def cut(content: bytearray, dice: random.Random) -> None:
    del content[dice.randrange(len(content)) :]


def shorten(content: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(content))
    del content[start : start + dice.randrange(1, 64)]


def lengthen(content: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(content) + 1)
    content[start:start] = dice.randbytes(dice.randrange(1, 64))


def erase(content: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))


def swap(content: bytearray, dice: random.Random) -> None:
    size = len(content) // 8
    one, other = dice.randrange(size), dice.randrange(4 * size, 7 * size)
    content[one : one + size], content[other : other + size] = (
        content[other : other + size],
        content[one : one + size],
    )


BYTE_CHANGES = (flip, flip_at_the_start, flip_at_the_end, cut, shorten, lengthen, erase, swap)


def byte_mutations(write: Callable[[Path], None], count: int, dice: random.Random) -> list[Mutation]:
    """Each kind of change in turn, of the bytes of the file that `write` writes."""

    def write_changed(file: Path, change: Callable, seed: int) -> None:
        write(file)
        content = bytearray(file.read_bytes())
        change(content, random.Random(seed))
        file.write_bytes(content)

    changes = [BYTE_CHANGES[i % len(BYTE_CHANGES)] for i in range(count)]
    return [
        Mutation(
            f"bytes: {change.__name__}", "as read", partial(write_changed, change=change, seed=dice.getrandbits(32))
        )
        for change in changes
    ]


# Checkpoints


@dataclass
class Checkpoint:
    family: str
    options: list[str]
    tensors: Tensors


def checkpoints() -> list[Checkpoint]:
    mlp = load_case("vae", "mlp_beta")
    sr3, guided = load_case("sr3", "sr3_conditional"), load_case("guided_diffusion_unet", "new_attention_class_cond")
    return [
        Checkpoint("dcgan", [], load_case("dcgan", "rgb_G").weights),
        Checkpoint("pythae", [f"input_dim={','.join(map(str, mlp.config['input_dim']))}"], mlp.weights),
        Checkpoint("sr3", ["norm_groups=8", "image_size=8"], sr3.weights),
        Checkpoint("guided_diffusion", CLASS_COND, guided.weights),
    ]


def convert_by_command(file: Path, output: Path, checkpoint: Checkpoint) -> str | None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = ["--option", *checkpoint.options] if checkpoint.options else []
            main([str(file), str(output), "--family", checkpoint.family, *options])
        except SystemExit:
            return said.getvalue().strip()
    return None


def write_checkpoint(file: Path, content, zipped: bool = True) -> None:
    if file.suffix == WEIGHTS:
        save_file(content, file)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=zipped)


def copy_checkpoint(file: Path, clean: Path) -> None:
    write_checkpoint(clean, load_file(file) if file.suffix == WEIGHTS else torch.load(file, weights_only=True))


def checkpoint_mutations(tensors: Tensors, dice: random.Random) -> list[tuple[Mutation, str]]:
    """Mutations of the content of a checkpoint, and the endings of the names of files that can hold it."""
    of_either_format = {
        "names of DataParallel": {f"module.{key}": value for key, value in tensors.items()},
        "names of torch.compile": {f"_orig_mod.{key}": value for key, value in tensors.items()},
        "another order": dict(reversed(tensors.items())),
        "double precision": {key: v.double() if v.is_floating_point() else v for key, v in tensors.items()},
    }
    of_torch = {
        "nested weights": {"state_dict": tensors, "epoch": 3, "optimizer_states": [{"lr": 0.1}]},
        "parameters": {key: torch.nn.Parameter(v, v.is_floating_point()) for key, v in tensors.items()},
        "an ordered dict": collections.OrderedDict(tensors),
    }
    no_checkpoint = {
        "code beside the weights": {"state_dict": tensors, "callback": Code()},
        "code among the weights": {**tensors, "code": Code()},
        "code alone": Code(),
        "code in a key": {**tensors, (Code(),): torch.ones(1)},
        "a list": list(tensors.values()),
        "nothing": {},
        "numbers as names": dict(enumerate(tensors.values())),
    }

    def mutations(contents: dict, fate: Fate, write: Callable) -> list[Mutation]:
        return [Mutation(name, fate, partial(write, content=content)) for name, content in contents.items()]

    return [
        *((mutation, "any") for mutation in mutations(tensor_mutations(tensors, dice), "refused", write_checkpoint)),
        *((mutation, "any") for mutation in mutations(of_either_format, "as before", write_checkpoint)),
        *((mutation, ".pt") for mutation in mutations(of_torch, "as before", write_checkpoint)),
        *(
            (mutation, "any")  # also under the name of another format
            for mutation in mutations(no_checkpoint, "refused", lambda file, content: torch.save(content, file))
        ),
    ]


def fuzz_checkpoints(count: int = 50, seed: int = 0) -> list[Outcome]:
    """Converts mutated checkpoints of several families, in the three formats of their files."""
    dice, outcomes = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, checkpoint in enumerate(sources := checkpoints()):
            convert = partial(convert_by_command, checkpoint=checkpoint)
            write_checkpoint(folder / "good.pt", checkpoint.tensors)
            refusal = convert(folder / "good.pt", folder / checkpoint.family)
            assert refusal is None, refusal
            job = Job(convert, copy_checkpoint, contents(folder / checkpoint.family))
            # Each checkpoint takes its share of all kinds, beginning with another one.
            structural = checkpoint_mutations(checkpoint.tensors, dice)[i :: len(sources)]
            share = len(range(i, count, len(sources)))
            for number in range(share):
                suffix = (".pt", WEIGHTS, ".ckpt")[number % 3]  # .ckpt stands for the older format of torch.save
                if number % 2 == 0 and number // 2 < len(structural):
                    mutation, wanted = structural[number // 2]
                    suffix = suffix if wanted == "any" else wanted
                else:
                    write = partial(write_checkpoint, content=checkpoint.tensors, zipped=suffix != ".ckpt")
                    mutation = byte_mutations(write, number + i + 1, dice)[-1]
                mutation.name = f"{checkpoint.family}{suffix}, {mutation.name}"
                outcomes.append(judge(mutation, job, folder / f"{checkpoint.family}-{number}" / f"model{suffix}"))
    return outcomes


# LoRA files


def convert_lora(file: Path, output: Path, pipe) -> str | None:
    """As the command does, which would load the base for each file."""
    try:
        convert_lora_file(file, output, pipe)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def copy_lora(file: Path, clean: Path) -> None:
    with safe_open(file, "pt") as content:
        save_file(load_file(file), clean, content.metadata())


def lora_mutations(tensors: Tensors, notes: dict, dice: random.Random) -> list[Mutation]:
    """Mutations of the content of a LoRA file of kohya's layout, or of that of diffusers if there are `notes`."""

    def write(file: Path, content: Tensors, notes: dict = notes) -> None:
        save_file({key: value.contiguous().clone() for key, value in content.items()}, file, notes)

    def mutation(name: str, fate: Fate, content: Tensors, notes: dict = notes) -> Mutation:
        return Mutation(name, fate, partial(write, content=content, notes=notes))

    layer = next(iter(tensors)).partition(".lora_")[0].removesuffix(".alpha")
    found = [mutation(name, "refused", content) for name, content in tensor_mutations(tensors, dice).items()]
    found += [mutation("another order", "as before", dict(reversed(tensors.items())))]
    found += [mutation("LoHa", "refused", {**tensors, f"{layer}.hada_w1_a": torch.ones(2, 2)})]
    found += [Mutation("a pickle with code", "refused", lambda file: torch.save(Code(), file))]
    if notes:
        found += [mutation("damaged notes", "refused", tensors, {NOTES: notes[NOTES][:-3]})]
        found += [mutation("notes of another kind", "refused", tensors, {NOTES: "[1, 2]"})]
        scale = torch.ones(1, 3)
        return found + [mutation("magnitudes", "refused", {**tensors, f"{layer}.lora_magnitude_vector": scale})]
    without = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    twice = {key: value.repeat(2) if key == f"{layer}.alpha" else value for key, value in tensors.items()}
    return [
        *found,
        mutation("no alphas", "as before", without),  # they are the ranks
        mutation("one alpha is missing", "refused", {k: v for k, v in tensors.items() if k != f"{layer}.alpha"}),
        mutation(
            "an alpha of two numbers", "refused", {k: v.repeat(2) if v is twice else v for k, v in twice.items()}
        ),
        mutation("magnitudes of the inputs", "refused", {**tensors, f"{layer}.dora_scale": torch.ones(1, 16)}),
    ]


def fuzz_loras(count: int = 30, seed: int = 0) -> list[Outcome]:
    """Converts mutated LoRA files of both layouts."""
    dice, outcomes = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        diffusers_file, _ = random_adapters(folder / "diffusers", "sdxl")
        pipe = pipeline("sdxl")
        convert = partial(convert_lora, pipe=pipe)
        kohya_file = convert_lora_file(diffusers_file, folder / "kohya.safetensors", pipe)
        named = convert_state_dict_to_kohya(load_file(diffusers_file))
        for layout, file in (("kohya", kohya_file), ("diffusers", diffusers_file)):
            assert convert(file, folder / f"expected-{layout}") is None
            job = Job(convert, copy_lora, contents(folder / f"expected-{layout}"))
            with safe_open(file, "pt") as opened:
                notes = {key: value for key, value in (opened.metadata() or {}).items() if key == NOTES}
            mutations = lora_mutations(load_file(file), notes, dice)
            if layout == "kohya":
                mutations.append(Mutation("diffusers' names", "as before", partial(save_file, named)))
            mutations = dice.sample(mutations, min(len(mutations), count // 3))
            mutations += byte_mutations(partial(shutil.copy, file), count // 2 - len(mutations), dice)
            for number, mutation in enumerate(mutations):
                mutation.name = f"{layout}, {mutation.name}"
                outcomes.append(judge(mutation, job, folder / f"{layout}-{number}" / "lora.safetensors"))
    return outcomes


def report(kind: str, outcomes: list[Outcome]) -> str:
    faults = [outcome for outcome in outcomes if outcome.fault]
    refused = sum(outcome.is_refused for outcome in outcomes if not outcome.fault)
    lines = [
        f"{len(outcomes)} mutated {kind}: {refused} refused in a sentence, {len(outcomes) - refused - len(faults)} "
        f"converted rightly, {len(faults)} faults"
    ]
    return "\n".join(lines + [f"  {outcome.name}: {outcome.fault}" for outcome in faults])


if __name__ == "__main__":
    results = {"checkpoints": fuzz_checkpoints(), "LoRA files": fuzz_loras()}
    for kind, outcomes in results.items():
        print(report(kind, outcomes))
    sys.exit(any(outcome.fault for outcomes in results.values() for outcome in outcomes))
