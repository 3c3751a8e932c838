"""The model card: what a model is, how it was made, how good it is, and code that loads it."""

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData

import diffusers_ext
from diffusers_ext.hub.local_paths import without_local_paths
from diffusers_ext.hub.own_files import write_own


# When the model is published, its address replaces the one in this section, which the first line repeats.
LOADING = re.compile(r"<!-- loading (?P<address>.*?) -->.*?<!-- /loading -->", re.DOTALL)
LIBRARIES = ("diffusers_ext", "diffusers", "torch")


def write_model_card(folder: str | os.PathLike, **description) -> Path:
    """
    Write the card of the pipeline in `folder` to its `README.md`. The card shows `samples.png` if the folder has it.

    A `README.md` that this program did not write, or that was changed since, stays, and the card gets another name.
    [`publish_folder`] publishes the card.

    Args:
        folder (`str` or `os.PathLike`): the folder of the pipeline. The loading code has it as the address until the
            model is published.
        description: the keywords of [`model_card`], except `address` and `has_samples`.

    Returns:
        `Path`: the file.
    """
    has_samples = (Path(folder) / "samples.png").is_file()
    card = model_card(address=Path(folder).as_posix(), has_samples=has_samples, **description)
    return write_own(folder, "README.md", card.encode())


def model_card(
    *,
    title: str,
    pipeline_class: str,
    address: str,
    task: str | None = None,
    usage: str | None = None,
    loading: str | None = None,
    has_samples: bool = False,
    dataset: str | None = None,
    dataset_id: str | None = None,
    license: str | None = None,
    command: str | None = None,
    config: Mapping | None = None,
    metrics: Sequence[Mapping] = (),
    measures: Sequence[str] = (),
    id2label: Mapping[int, str] | None = None,
    tags: Sequence[str] = (),
    pipeline_tag: str | None = None,
    base_model: str | None = None,
) -> str:
    """
    The text of a model card, with the metadata that the Hub reads. Sections without content are left out.

    Args:
        title (`str`): the name of the model.
        pipeline_class (`str`): the pipeline of `diffusers_ext`, such as `"ClassConditionalPipeline"`.
        address (`str`): where to load it from: `user/name`, or a folder.
        task (`str`): what the model does and what it is, in Markdown.
        usage (`str`): Python lines that use `pipe`.
        loading (`str`): Python lines that load the model and use it, for models that are not a pipeline of
            `diffusers_ext`. They replace the usual lines and `usage`, and contain `{address}` for the address.
        has_samples (`bool`): whether a picture `samples.png` lies beside the card.
        dataset (`str`): the training data, in Markdown.
        dataset_id (`str`): the data set's name on the Hub.
        license (`str`): the licence of the weights, an identifier of the Hub such as `"apache-2.0"`.
        command (`str`): the command that trained it.
        config (`Mapping`): the resolved configuration. Entries whose names end with `token`, and the folders of local
            paths, are left out.
        metrics (`Sequence[Mapping]`): a row of JSON values for each measurement: the measures, and the settings of
            the measurement.
        measures (`Sequence[str]`): the columns of `metrics` that are measures. The metadata has them, with the other
            columns as settings.
        id2label (`Mapping[int, str]`): the names of the classes.
        tags (`Sequence[str]`): tags in addition to `diffusers` and `diffusers_ext`.
        pipeline_tag (`str`): the task as the Hub names it, by default the `pipeline_tag` of the pipeline class.
        base_model (`str`): the model that this one was made from, as the Hub names it.

    Returns:
        `str`: the card. Access tokens in it are made unreadable.
    """
    pipeline_tag = pipeline_tag or find_pipeline_tag(pipeline_class)
    metrics = without_local_paths(list(metrics))
    results = _evaluation_results(metrics, measures, pipeline_tag, dataset_id or dataset)
    data = ModelCardData(
        license=license,
        library_name="diffusers",
        tags=["diffusers_ext", *tags],
        datasets=[dataset_id] if dataset_id else None,
        base_model=base_model,
        pipeline_tag=pipeline_tag,
        model_name=title,
        eval_results=results or None,
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {title}",
        task,
        "![Samples](samples.png)" if has_samples else None,
        _both_loadings(pipeline_class, address, usage) if loading is None else _own_loading(loading, address),
        f"## Data\n\n{dataset}" if dataset else None,
        _folded("Classes", ", ".join(f"{i} {name}" for i, name in id2label.items())) if id2label else None,
        f"## Measures\n\n{markdown_table(metrics)}" if metrics else None,
        _training(command, config),
        f"## Licence\n\n{license}" if license else None,
        f"## Versions\n\nPython {platform.python_version()}, "
        + ", ".join(f"{library} {version(library)}" for library in LIBRARIES),
    ]
    return _without_tokens("\n\n".join(section for section in sections if section) + "\n")


def find_pipeline_tag(pipeline_class: str) -> str:
    """The task of a pipeline class of this package as the Hub names it; other classes count as unconditional."""
    return getattr(getattr(diffusers_ext, pipeline_class, None), "pipeline_tag", "unconditional-image-generation")


def addressed_to(card: str, repo_id: str) -> str:
    """The card with loading code that names the repository `repo_id`; a card without that section stays as it is."""
    return LOADING.sub(lambda section: _moved(section[0], section["address"], repo_id), card)


def _moved(section: str, address: str, new_address: str) -> str:
    section = section.replace(f"<!-- loading {address} -->", f"<!-- loading {new_address} -->")
    return section.replace(f'"{address}"', f'"{new_address}"')


def _own_loading(loading: str, address: str) -> str:
    return _loading_section(address, f"```python\n{loading.strip().replace('{address}', address)}\n```")


def _loading_section(address: str, text: str) -> str:
    return f"## How to load it\n\n<!-- loading {address} -->\n{text}\n<!-- /loading -->"


def _both_loadings(pipeline_class: str, address: str, usage: str | None) -> str:
    usage = f"\n{usage.strip()}" if usage else ""
    return _loading_section(
        address,
        f"""With `diffusers_ext`:

```python
from diffusers_ext import {pipeline_class}

pipe = {pipeline_class}.from_pretrained("{address}"){usage}
```

With diffusers alone, which runs the code in this repository:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{address}", trust_remote_code=True){usage}
```""",
    )


def _training(command: str | None, config: Mapping | None) -> str | None:
    parts = [f"```bash\n{command.strip()}\n```"] if command else []
    if config:
        public = {name: value for name, value in config.items() if not name.endswith("token")}
        text = yaml.safe_dump(without_local_paths(public), sort_keys=False, allow_unicode=True)
        parts.append(_folded("Configuration", f"```yaml\n{text}```"))
    return "\n\n".join(["## Training", *parts]) if parts else None


def _folded(summary: str, text: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def trained_from(base_model: str | None) -> str:
    """What a training began with, as the end of a sentence; `base_model` is the pipeline that it went on from."""
    return "trained from random weights" if base_model is None else "trained on from its base model"


def markdown_table(rows: Sequence[Mapping]) -> str:
    """Rows of values by column as a table in Markdown; missing values are blank."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _evaluation_results(
    metrics: Sequence[Mapping], measures: Sequence[str], task: str, dataset: str | None
) -> list[EvalResult]:
    results = []
    for row in metrics:
        settings = {name: value for name, value in row.items() if name not in measures and value is not None}
        described = ", ".join(f"{name.replace('_', ' ')} {_cell(value)}" for name, value in settings.items())
        for name in measures:
            # YAML has a NaN, the JSON of the Hub does not; the table shows it.
            if row.get(name) is not None and math.isfinite(row[name]):
                results.append(
                    EvalResult(
                        task_type=task,
                        dataset_type=dataset or "unknown",
                        dataset_name=dataset or "unknown",
                        metric_type=name,
                        metric_name=f"{name} ({described})" if described else name,
                        metric_value=row[name],
                    )
                )
    return results


def _without_tokens(text: str) -> str:
    return re.sub(r"\bhf_[A-Za-z0-9]{16,}", "hf_***", text)
