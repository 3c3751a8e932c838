"""The report of a run: one HTML file with losses, grids of samples, measures and options, for any browser.

It is made from what the run has written: `logs/metrics.jsonl` and `samples/`. So a resumed run continues its report,
without gaps and without the steps that it repeats. It loads nothing and runs no script.
"""

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.training.loop.options import as_arguments


REPORT = "report.html"
POINTS = 300  # of a curve; more than that many steps are averaged
GRIDS = 12
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 220, 64, 24
STYLE = """
:root { color-scheme: light dark; --line: #4051b5; --band: #4051b533; --rule: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1340px; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--rule); }
.curves, .grids { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; font-size: 12px; }
polyline { fill: none; stroke: var(--line); stroke-width: 1.5; } polygon { fill: var(--band); }
svg line { stroke: var(--rule); } img { width: 100%; } .grids figure { flex: 1 1 380px; max-width: 640px; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); } .wide { overflow-x: auto; } code { overflow-wrap: anywhere; }
"""


@dataclass
class Progress:
    """How far a run is: the last step, how many there are, and the seconds of training."""

    step: int
    max_train_steps: int
    seconds: float


def write_report(
    folder: Path, title: str, progress: Progress, options: Mapping, rows: Sequence[Mapping] = (), command: str = ""
) -> None:
    """Write `report.html` into the output folder of a run, in one rename.

    Args:
        folder (`Path`): the output folder.
        title (`str`): the heading.
        progress (`Progress`): how far the run is. Later lines and grids in the folder are left out.
        options (`Mapping`): the options of the run.
        rows (`Sequence[Mapping]`): the measures of the finished run; those of its evaluations are in its log.
        command (`str`): the command line.
    """
    steps, evaluations = _read_log(folder / "logs" / "metrics.jsonl", progress.step)
    if rows:
        evaluations.append((progress.step, list(rows)))
    done = progress.step == progress.max_train_steps
    minutes = progress.seconds / 60
    state = f"{'Finished' if done else 'In progress'}: step {progress.step} of {progress.max_train_steps}, "
    state += f"{minutes:.1f} minutes of training."
    curves = {name: points for name, points in steps.items() if len(points) > 1}
    losses = [name for name in curves if name.endswith("loss")]
    grids = "".join(_grids(folder, progress.step, done))
    sections = {
        "Losses": _curves({name: curves[name] for name in losses}),
        "Samples": f"<div class=grids>{grids}</div>" if grids else "",
        "Measures": _measures(evaluations),
        "Other curves": _curves({name: points for name, points in curves.items() if name not in losses}),
        "Options": _table(
            ("option", "value"), [(f"--{name}", " ".join(as_arguments(value))) for name, value in options.items()]
        ),
        "Command": f"<code>{escape(command)}</code>" if command else "",
    }
    body = "".join(f"<h2>{name}</h2>{content}" for name, content in sections.items() if content)
    text = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    write_text_atomically(folder / REPORT, f"{text}<h1>{escape(title)}</h1><p>{state}</p>{body}</html>\n")


def _read_log(path: Path, last: int) -> tuple[dict[str, list[tuple[int, float]]], list[tuple[int, list[dict]]]]:
    """The points of each value, and the rows of each evaluation, up to the step `last`."""
    curves, evaluations = {}, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        values = json.loads(line)
        step = values.pop("step")
        if step > last:
            continue
        if "evaluation" in values:
            evaluations.append((step, values.pop("evaluation")))
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(name, []).append((step, value))
    return curves, evaluations


def _curves(curves: Mapping[str, list[tuple[int, float]]]) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption>{_curve(points)}</figure>" for name, points in curves.items()
    )
    return f"<div class=curves>{figures}</div>" if figures else ""


def _curve(points: list[tuple[int, float]]) -> str:
    """A picture of a curve: the means of neighbouring steps, over a band from their lowest to their highest value."""
    size = math.ceil(len(points) / POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    steps = [sum(step for step, _ in part) / len(part) for part in parts]
    values = [[value for _, value in part] for part in parts]
    means = [sum(part) / len(part) for part in values]
    lowest, highest = min(map(min, values)), max(map(max, values))
    # Losses that fall by orders of magnitude are flat lines on a linear axis.
    is_logarithmic = lowest > 0 and highest > 20 * lowest
    scale = math.log if is_logarithmic else float
    bottom, height = scale(lowest), (scale(highest) - scale(lowest)) or 1.0

    def place(step: float, value: float) -> str:
        x = LEFT + (step - steps[0]) / ((steps[-1] - steps[0]) or 1) * (WIDTH - LEFT - 8)
        y = (HEIGHT - BOTTOM) - (scale(value) - bottom) / height * (HEIGHT - BOTTOM - 8)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(map(place, steps, means))
    band = [*map(place, steps, map(max, values)), *reversed(list(map(place, steps, map(min, values))))]
    base = HEIGHT - BOTTOM
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width={WIDTH} role=img>'
        f"<line x1={LEFT} y1={base} x2={WIDTH} y2={base} /><line x1={LEFT} y1=0 x2={LEFT} y2={base} />"
        f'<polygon points="{" ".join(band)}" /><polyline points="{line}" />'
        f"<text x={LEFT - 6} y=14 text-anchor=end>{highest:.3g}</text>"
        f"<text x={LEFT - 6} y={base} text-anchor=end>{lowest:.3g}</text>"
        f"<text x={LEFT} y={HEIGHT - 6}>step {points[0][0]}</text>"
        f"<text x={WIDTH} y={HEIGHT - 6} text-anchor=end>{points[-1][0]}</text>"
        f"{'<text x=' + str(LEFT + 6) + ' y=14>logarithmic</text>' if is_logarithmic else ''}</svg>"
    )


def _grids(folder: Path, last: int, done: bool) -> Iterator[str]:
    """The grids of the run, at most `GRIDS` of them, evenly chosen, the first and the last ones included."""
    by_step = {}
    for path in (folder / "samples").glob("step-*.png"):
        number = re.fullmatch(r"step-(\d+)\.png", path.name)
        if number and int(number[1]) <= last:
            by_step[int(number[1])] = path
    if done and (folder / "samples.png").is_file():
        by_step[last] = folder / "samples.png"
    steps = sorted(by_step)
    if len(steps) > GRIDS:
        steps = [steps[round(i * (len(steps) - 1) / (GRIDS - 1))] for i in range(GRIDS)]
    for step in steps:
        data = base64.b64encode(by_step[step].read_bytes()).decode()
        image = f'<img alt="Samples at step {step}" src="data:image/png;base64,{data}">'
        yield f"<figure><figcaption>Step {step}</figcaption>{image}</figure>"


def _measures(evaluations: Sequence[tuple[int, list[dict]]]) -> str:
    rows = [{"step": step, **row} for step, rows in evaluations for row in rows]
    rows = [{name: value for name, value in row.items() if not isinstance(value, dict | list)} for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _table(columns, [[row.get(column) for column in columns] for row in rows]) if rows else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _cell(value) -> str:
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
