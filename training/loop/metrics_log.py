"""Training metrics as JSON lines on the disk."""

import json
import logging
import shutil
from pathlib import Path

from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.training.loop.write_errors import writing


logger = logging.getLogger(__name__)


class MetricsLog:
    """The file `metrics.jsonl`, one object per line, each with its `step`: `{"step": 10, "loss": 0.12, ...}`.

    Args:
        folder (`str` or `Path`): where the file is; lines are appended to it.
        resume_step (`int`): lines of later steps are dropped; a killed run wrote them after its last checkpoint.
        enabled (`bool`): whether this process writes; the others pass `False`.
    """

    def __init__(self, folder: str | Path, resume_step: int, enabled: bool = True):
        self.path = Path(folder) / "metrics.jsonl"
        self.resume_step = resume_step
        self.enabled = enabled

    def __enter__(self) -> "MetricsLog":
        if self.enabled:
            with self._writing():
                write_text_atomically(self.path, "".join(self._kept_lines()))
                # Unbuffered: what could not be written must not be tried again when the file is closed.
                self._file = self.path.open("ab", buffering=0)
        return self

    def __exit__(self, *exception) -> None:
        if self.enabled:
            self._file.close()

    def write(self, step: int, **values) -> None:
        """Append a line."""
        if self.enabled:
            with self._writing():
                line = memoryview((json.dumps({"step": step, **values}) + "\n").encode())
                while line:
                    line = line[self._file.write(line) :]

    def _writing(self):
        return writing(str(self.path), "continue with --resume_from_checkpoint latest")

    def _kept_lines(self) -> list[str]:
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        lines = text.splitlines(keepends=True)
        # A line without a line break at its end was being written when the process was killed.
        steps = {line: _step(line) for line in lines if line.endswith("\n")}
        broken = [line for line, step in steps.items() if step is None]
        if broken:
            copy = self.path.with_name("metrics-damaged.jsonl")
            shutil.copyfile(self.path, copy)
            logger.warning(f"{len(broken)} lines of {self.path} can't be read and are left out; {copy} has them.")
        return [line for line in lines if steps.get(line) is not None and steps[line] <= self.resume_step]


def _step(line: str) -> int | None:
    """The step of a line, or `None` if the line is damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError):
        return None
    return step if isinstance(step, int) else None
