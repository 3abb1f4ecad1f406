"""The measurements of a report, each made once and kept in its notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from trit import engine
from trit.evaluate import Estimate, Running, evaluate
from trit.evaluate._machine import build_commit, busy, cpu_name
from trit.evaluate._task_items import TaskFile
from trit.evaluate.card import Card
from trit.evaluate.speed import SpeedTest, bench
from trit.evaluate.tasks import TaskResult, Values, ask, result
from trit.machine.processors import default_threads
from trit.report._figures import Quality, Rate
from trit.report._notes import Notes, Result, fingerprint

VERSION = 1  # of what is kept; another one is measured again

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; `content` is the text, `threads` None for all cores."""

    content: str
    text_sha256: str
    ctx: int
    chunks: int | None
    tests: tuple[SpeedTest, ...]
    rounds: int
    files: tuple[TaskFile, ...]
    threads: int | None


class Measuring:
    """Measures models one thing at a time, or finds it in the notes."""

    def __init__(
        self,
        settings: Settings,
        notes: Notes,
        reference: Path | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._settings, self._notes, self._reference = settings, notes, reference
        self._report = on_progress or (lambda what, done, total: None)
        threads = settings.threads or default_threads()
        self._machine = {"cpu": cpu_name(), "isa": engine.isa(), "threads": threads}

    def left(self, paths: Sequence[Path]) -> tuple[int, int, int]:
        """What is to be done: texts to read, questions to ask, files to time, round by round."""
        texts = sum(not self._notes.has(self._about_quality(path)) for path in paths)
        questions = sum(
            len(file.questions)
            for path in paths
            for file in self._settings.files
            if not self._notes.has(self._about_task(path, file))
        )
        runs = sum(
            not self._notes.has(self._about_speed(path, number))
            for path in paths
            for number in self._rounds
        )
        return texts, questions, runs

    def quality(self, path: Path) -> Quality:
        """Perplexity, and the divergence from the reference where there is one."""
        settings, other = self._settings, self._other(path)

        def measure() -> Result:
            def running(now: Running) -> None:
                self._report(f"quality of {path.name}", now.done, now.total)

            return evaluate(
                path, settings.content, other, settings.ctx, settings.chunks, settings.threads,
                running,
            ).to_dict()  # fmt: skip

        return _quality(self._measured(self._about_quality(path), measure))

    def answers(self, path: Path, file: TaskFile) -> tuple[Values, int]:
        """For each question the value of each metric; and the number of contexts cut."""

        def measure() -> Result:
            asked = ask(path, [file], self._settings.threads, self._report)
            values = {name: list(map(float, each)) for name, each in asked.values[0].items()}
            return {"values": values, "cut": asked.cut[0]}

        kept = self._measured(self._about_task(path, file), measure)
        return {name: np.array(each) for name, each in kept["values"].items()}, kept["cut"]

    def tasks(self, path: Path) -> tuple[TaskResult, ...]:
        """The figures of all tasks, compared with the reference's."""
        found = []
        for file in self._settings.files:
            values, cut = self.answers(path, file)
            other = self._other(path)
            theirs = None if other is None else self.answers(other, file)[0]
            found.append(result(file, values, cut, theirs))
        return tuple(found)

    def speeds(self, paths: Sequence[Path]) -> None:
        """All tests of every model once a round: what slows the machine hits all of them."""
        for number in self._rounds:
            for path in paths:
                self._speed(path, number)

    def rates(self, path: Path) -> tuple[Rate, ...]:
        """Of the samples of `speeds`."""
        rounds = [self._speed(path, number)["tests"] for number in self._rounds]
        return tuple(
            Rate(test.label, tuple(each[test.label]["samples_ts"][0] for each in rounds))
            for test in self._settings.tests
        )

    def memory(self, path: Path) -> int | None:
        """Of the last round's last test."""
        if not self._settings.tests:
            return None
        last = self._speed(path, self._rounds[-1])["tests"][self._settings.tests[-1].label]
        actual = last["actual_memory_bytes"]
        return int(last["predicted_memory_bytes"] if actual is None else actual)

    def busy(self, path: Path) -> bool:
        """Whether other programs computed as well during any speed test."""
        return any(self._speed(path, number)["busy"] for number in self._rounds)

    def when(self, path: Path) -> tuple[str, ...]:
        """Commits and days of all that is kept of a model."""
        return tuple(sorted({f"{each['commit']} on {each['day']}" for each in self._kept(path)}))

    def _kept(self, path: Path) -> Iterator[Result]:
        abouts: list[dict[str, Any]] = [self._about_quality(path)]
        abouts += [self._about_task(path, file) for file in self._settings.files]
        abouts += [self._about_speed(path, number) for number in self._rounds]
        return (self._notes.get(about, dict) for about in abouts if self._notes.has(about))

    def _measured(self, about: dict[str, Any], measure: Callable[[], Result]) -> Result:
        def stamped() -> Result:
            now = datetime.now(UTC)
            return {"commit": build_commit(), "day": f"{now:%Y-%m-%d}", **measure()}

        return self._notes.get(about, stamped)

    @property
    def _rounds(self) -> range:
        return range(self._settings.rounds if self._settings.tests else 0)

    def _speed(self, path: Path, number: int) -> Result:
        tests = self._settings.tests

        def measure() -> Result:
            threads = None if self._settings.threads is None else [self._settings.threads]
            made = {}
            self._report(f"speed of {path.name}, round {number + 1}", 0, len(tests))
            for found in bench(path, tests, threads, 1, with_limits=False):
                made[found.test.label] = found.to_dict()
                self._report(f"speed of {path.name}, round {number + 1}", len(made), len(tests))
            return {"tests": made, "busy": busy()}

        return self._measured(self._about_speed(path, number), measure)

    def _other(self, path: Path) -> Path | None:
        """What a model is compared with; the reference with nothing."""
        reference = self._reference
        return None if reference is None or path.samefile(reference) else reference

    def _about_quality(self, path: Path) -> dict[str, Any]:
        other = self._other(path)
        return {
            "what": "quality",
            "version": VERSION,
            "model": fingerprint(path),
            "reference": None if other is None else fingerprint(other),
            "text": self._settings.text_sha256,
            "ctx": self._settings.ctx,
            "chunks": self._settings.chunks,
            "isa": self._machine["isa"],
        }

    def _about_task(self, path: Path, file: TaskFile) -> dict[str, Any]:
        return {
            "what": "task",
            "version": VERSION,
            "model": fingerprint(path),
            "task": file.task.name,
            "file": file.sha256,
            "questions": len(file.questions),
            "isa": self._machine["isa"],
        }

    def _about_speed(self, path: Path, number: int) -> dict[str, Any]:
        return {
            "what": "speed",
            "version": VERSION,
            "model": fingerprint(path),
            "tests": [test.label for test in self._settings.tests],
            "round": number,
            **self._machine,
        }


def _quality(kept: Result) -> Quality:
    def pair(name: str, spread: str) -> Estimate | None:
        return Estimate(kept[name], kept[spread]) if name in kept else None

    return Quality(
        basis="measured",
        tokens=kept["tokens"],
        ppl=Estimate(kept["ppl"], kept["ppl_stderr"]),
        ln_ratio=pair("ln_ppl_ratio", "ln_ppl_ratio_stderr"),
        kld=pair("kld_mean", "kld_stderr"),
        kld_p99=kept.get("kld_p99"),
        same_top=pair("same_top", "same_top_stderr"),
    )


def with_card(found: Quality, card: Card | None) -> Quality:
    """The divergence of a file's own card, where no reference was given."""
    if card is None or found.kld is not None:
        return found
    return Quality("card", found.tokens, found.ppl, None, card.kld, None, card.same_top)
