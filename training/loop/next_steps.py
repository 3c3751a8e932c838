"""What to do with a finished run: the lines that load, measure and publish it."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

from diffusers import DiffusionPipeline

from diffusers_ext.on_demand import definition
from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.options import as_arguments, place


EVALUATION = "diffusers_ext.training.evaluate_pipeline"


def next_steps(folder: Path, pipeline: DiffusionPipeline, config: TrainingConfig, description: dict) -> str:
    """The message at the end of a run.

    Args:
        folder (`Path`): the output folder.
        pipeline (`DiffusionPipeline`): what was trained.
        config (`TrainingConfig`): the options of the training.
        description (`dict`): from [`Recipe.describe`], with the `usage` of the pipeline or its own `loading`.
    """
    sections = {
        "Load it, in Python": loading_lines(folder, type(pipeline).__name__, description),
        "Measure it": measuring_command(folder, pipeline, config),
        "Publish it": publishing_command(folder, config),
    }
    texts = [f"{title}:\n" + "\n".join(f"    {line}" for line in lines) for title, lines in sections.items() if lines]
    return "\n".join([f"{folder} has the result, samples.png, metrics.json and a card (README.md).", *texts])


def loading_lines(folder: Path, pipeline_class: str, description: dict) -> list[str]:
    """Python lines that load the result and use it, as the card has them."""
    if description.get("loading") is not None:
        return description["loading"].strip().replace("{address}", str(folder)).splitlines()
    usage = (description.get("usage") or "").strip()
    load = f'pipe = {pipeline_class}.from_pretrained("{folder}")'
    return [f"from diffusers_ext import {pipeline_class}", load, *usage.splitlines()]


def measuring_command(folder: Path, pipeline: DiffusionPipeline, config: TrainingConfig) -> list[str]:
    """The command that measures the result on the data of the training; none where the command can't measure it."""
    values = config.to_dict()
    if not (values.get("tasks") or getattr(pipeline, "samples_from_noise", False)):
        return []
    extractor = config.feature_extractor or ("digits" if config.dataset_name == "digits" else "inception")
    values |= {"feature_extractor": extractor}
    evaluation = definition(EVALUATION, "EvaluateConfig")
    arguments = ["--pretrained_model_name_or_path", str(folder)]
    for field in fields(evaluation):
        # The size is that of the pipeline; which samplers are compared is not decided by the training.
        kept = field.name in ("num_evaluation_samples", "feature_extractor") or (
            place(evaluation, field.name)[0] in ("data", "objective") and field.name != "resolution"
        )
        value = values.get(field.name)
        if kept and value not in (None, [], {}, field.default):
            arguments += [f"--{field.name}", *as_arguments(value)]
    return [shlex.join(["accelerate", "launch", "-m", EVALUATION, *arguments])]


def publishing_command(folder: Path, config: TrainingConfig) -> list[str]:
    """The command that publishes the result; none if the run has published it."""
    if config.push_to_hub:
        return []
    # The Hub allows these characters in names, and folders may have any.
    allowed = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-.") or "NAME"
    name = config.hub_model_id or f"YOUR_NAME/{allowed}"
    arguments = ", ".join(json.dumps(text, ensure_ascii=False) for text in (str(folder), name))
    return [shlex.join(["python", "-c", f"from diffusers_ext.hub import publish_folder; publish_folder({arguments})"])]
