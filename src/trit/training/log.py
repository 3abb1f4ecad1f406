"""The diary of a run, log.jsonl: one JSON object a line, of a step, of a measurement, of a sample.

Losses are written with all their digits. A run that goes on from a state of step n keeps the lines
up to n and writes the others again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from trit.files._whole import whole

FILE = "log.jsonl"


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a diary in order; a line torn by a kill is left out."""
    path = folder / FILE
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [entry for entry in map(_parse, lines) if entry is not None]


class Log:
    """A diary to go on with after `step` steps. A context manager."""

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / FILE
        kept = [entry for entry in read(folder) if entry["step"] <= step] if step else []
        with whole(path) as file:
            file.writelines((json.dumps(each) + "\n").encode() for each in kept)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, values: dict[str, Any]) -> None:
        """Add a line."""
        line = {"event": event, "step": step} | values
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Have all lines on the disk, before a state that counts on them."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None
