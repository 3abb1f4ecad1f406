"""Progress of long jobs on stderr: a bar on a terminal, a line at times in a log, or JSON lines.

A `Progress` is called as `progress(what, done, total)` by the verbs' `on_progress`; `total` 0 means
unknown. `unit="B"`: bytes are counted; else it is the name of one of what is counted. `remark` is
shown beside it, such as how good a training is by now. rich is imported only when a bar is really
drawn.
"""

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from trit.cli._terminal import counted, note, rate, size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LOG_SECONDS = 5.0
JSON_SECONDS = 0.5
DRAW_SECONDS = 0.1


class Progress:
    """A context manager and a callback; quiet until the first call."""

    def __init__(self, *, jsonl: bool = False, unit: str = "B") -> None:
        self.jsonl = jsonl
        self.unit = unit
        self.remark = ""
        self._log = not jsonl and not sys.stderr.isatty()
        self._interval = JSON_SECONDS if jsonl else LOG_SECONDS if self._log else DRAW_SECONDS
        self._what = ""
        self._begun = self._shown = time.monotonic()
        self._first = 0
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun, self._first = what, now, done
            self._shown = now if self._log else float("-inf")
        last = 0 < total <= done and not self._log  # a log has the command's own last word
        if now - self._shown < self._interval and not last:
            return
        self._shown = now
        if self.jsonl:
            self._write_json(done, total, now)
        elif self._log:
            note(self._line(done, total, now))
        else:
            self._draw(done, total, now)

    def _rate(self, done: int, now: float) -> float:
        return (done - self._first) / max(now - self._begun, 1e-9)

    def _count(self, count: int) -> str:
        return size(count) if self.unit == "B" else counted(count, self.unit)

    def _speed(self, speed: float) -> str:
        if self.unit == "B":
            return f"{size(speed)}/s"
        number = rate(speed)
        return f"{number} {self.unit}{'' if number == '1' else 's'}/s"

    def _line(self, done: int, total: int, now: float) -> str:
        speed = self._rate(done, now)
        text = f"{self._what}: {self._count(done)}"
        if total:
            text += f" of {self._count(total)} ({100 * done // total}%)"
        if speed > 0:
            text += f", {self._speed(speed)}"
            if total:
                text += f", {(total - done) / speed:.0f} s left"
        return f"{text}, {self.remark}" if self.remark else text

    def _write_json(self, done: int, total: int, now: float) -> None:
        event = {
            "event": "progress",
            "what": self._what,
            "done": done,
            "total": total,
            "unit": "bytes" if self.unit == "B" else f"{self.unit}s",
            "seconds": round(now - self._begun, 3),
        }
        if self.remark:
            event["remark"] = self.remark
        note(json.dumps(event))

    def _draw(self, done: int, total: int, now: float) -> None:
        if self._bar is None:
            self._bar = _make_bar(self.unit)
            self._bar.start()
        if self._task is None:
            self._task = self._bar.add_task(self._what, total=None)
        what = self._what
        if self.remark:
            what += f", {self.remark}, {self._speed(self._rate(done, now))}"
        self._bar.update(
            self._task, description=what, completed=done, total=total if total else None
        )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _make_bar(unit: str) -> "Bar":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=None)]
    if unit == "B":
        columns += [DownloadColumn(binary_units=True), TransferSpeedColumn()]
    else:
        columns += [MofNCompleteColumn()]
    columns += [TimeRemainingColumn()]
    return Bar(*columns, console=Console(stderr=True), transient=True)
