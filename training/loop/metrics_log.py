"""Training metrics as JSON lines on the disk."""

import json
from pathlib import Path

from diffusers_ext.hub.atomic import write_text_atomically


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
            write_text_atomically(self.path, "".join(self._kept_lines()))
            self._file = self.path.open("a")
        return self

    def __exit__(self, *exception) -> None:
        if self.enabled:
            self._file.close()

    def write(self, step: int, **values) -> None:
        """Append a line."""
        if self.enabled:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()

    def _kept_lines(self) -> list[str]:
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        # A line without a line break at its end was being written when the process was killed.
        return [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.resume_step]
