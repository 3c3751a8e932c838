"""The mini text-to-image model of examples/, its new digit and its ControlNet, by the commands of its README."""

import contextlib
import io
import json
import re
import runpy
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline


ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "mini_text_to_image"
README = (EXAMPLE / "README.md").read_text()
RESULTS = ("model", "textual_inversion", "dreambooth_lora", "dreambooth", "controlnet")

# Options that make the commands short, by the folder that they write to.
ONE_STEP = {name: ["--max_train_steps=1", "--num_inference_steps=1", "--num_validation_images=1"] for name in RESULTS}
ONE_STEP |= {"vae": ["--max_train_steps=1", "--num_evaluation_samples=10"], "judge": ["--count=1"]}
for name in ("dreambooth", "dreambooth_lora"):
    ONE_STEP[name] += ["--num_class_images=1", "--sample_batch_size=1"]


def commands() -> dict[str, list[str]]:
    """The words of each line of the first block of the README, without `python` or `accelerate launch`."""
    block = re.search(r"```bash\n(.*?)```", README, re.DOTALL).group(1)
    lines = [line.split() for line in block.replace("\\\n", " ").splitlines()]
    lines = [line[2 if line[0] == "accelerate" else 1 :] for line in lines]
    return {written_by(line): line for line in lines}


def written_by(line: list[str]) -> str:
    """The name of the folder that a command writes to; `judge` for the last one, which writes nothing."""
    script, text = Path(line[0]).stem, " ".join(line)
    if script.startswith("train_"):
        given = re.search(r"--output_dir=outputs/mini/(\w+)", text)
        return given[1] if given else Path(line[line.index("--config") + 1]).stem
    return script.removeprefix("make_")


def execute(options: dict[str, list[str]], folder: Path) -> str:
    """Run all commands in `folder`, with these further options: the output of the last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(EXAMPLE)
        for name, line in commands().items():
            words = [str(ROOT / word) if word.startswith(("examples/", "training/")) else word for word in line]
            patch.setattr("sys.argv", words + options.get(name, []))
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                runpy.run_path(words[0], run_name="__main__")
    return printed.getvalue()


def rows(table: str) -> dict[str, dict[str, str]]:
    """The cells of a table by row and column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


@pytest.mark.slow
def test_the_commands_lead_from_one_to_the_next(tmp_path):
    table, mini = rows(execute(ONE_STEP, tmp_path)), tmp_path / "outputs" / "mini"
    assert tuple(table) == RESULTS
    assert all(0 <= float(row["all of these"]) <= 100 for row in table.values())
    assert StableDiffusionPipeline.from_pretrained(mini / "model").tokenizer("a seven").input_ids
    files = ("textual_inversion/learned_embeds.safetensors", "dreambooth_lora/pytorch_lora_weights.safetensors")
    assert all((mini / file).is_file() for file in (*files, "controlnet/config.json", "dreambooth/model_index.json"))
    for name in RESULTS:
        assert (mini / name / "samples.png").is_file() and (mini / name / "README.md").is_file()
        assert json.loads((mini / name / "metrics.json").read_text())["step"] == 1


# The claims of the example


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The judge's table, from half as many images of each digit as by default."""
    return rows(execute({"judge": ["--count=50"]}, tmp_path_factory.mktemp("mini")))


@pytest.mark.slow
def test_the_mini_model_draws_the_digits_it_was_trained_on(table):
    assert float(table["model"]["all of these"]) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth_lora", "dreambooth"])
def test_the_held_out_digit_is_learned_from_five_images(table, name):
    assert float(table[name]["nine"]) >= 80 > float(table["model"]["nine"])
    # Textual inversion changes only the new word, and prior preservation keeps the other digits.
    assert float(table[name]["all of these"]) >= float(table["model"]["all of these"]) - 2


@pytest.mark.slow
def test_samples_follow_edges_while_they_show_the_digit(table):
    with_control, without = re.findall(r"[\d.]+", table["controlnet"]["edge F1 (without)"])
    assert float(with_control) >= 2 * float(without)
    assert float(table["controlnet"]["all of these"]) >= 95
