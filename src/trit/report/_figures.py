"""What a report says of a model, and the report as a whole."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from trit.doctor import Doctor
from trit.evaluate import Estimate
from trit.evaluate.tasks import TaskResult
from trit.pictures.bits import Grid


@dataclass(frozen=True)
class Quality:
    """Figures of a text; against the reference where there is one. `basis`: "measured" by this
    report, or read from the file's own "card", of another text."""

    basis: str
    tokens: int
    ppl: Estimate
    ln_ratio: Estimate | None
    kld: Estimate | None
    kld_p99: float | None
    same_top: Estimate | None


@dataclass(frozen=True)
class Rate:
    """Tokens per second of a test of llama-bench, one sample a round."""

    test: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest."""
        return min(self.samples), max(self.samples)


@dataclass(frozen=True)
class Figures:
    """One model.

    label        its file's name, without the ending
    types        of its matrices, most bytes first
    memory       bytes of the process with the model after the speed tests, as the system tells, or
                 reckoned where it does not; None without speed tests
    busy         whether other programs computed during a speed test
    tasks        compared with the reference question by question where there is one
    measured_at  commits of trit and days of what was measured
    """

    label: str
    path: str
    is_reference: bool
    architecture: str
    parameters: int
    bytes: int
    bits_per_weight: float
    types: tuple[str, ...]
    recipe: str | None
    quality: Quality | None
    rates: tuple[Rate, ...]
    memory: int | None
    busy: bool
    tasks: tuple[TaskResult, ...]
    measured_at: tuple[str, ...]
    grid: Grid

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        answer = {key: getattr(self, key) for key in (
            "label", "path", "is_reference", "architecture", "parameters", "bytes",
            "bits_per_weight", "types", "recipe", "memory", "busy", "measured_at",
        )}  # fmt: skip
        return answer | {
            "quality": None if self.quality is None else asdict(self.quality),
            "speed": [
                {"test": rate.test, "median": rate.median, "samples": list(rate.samples)}
                for rate in self.rates
            ],
            "tasks": [asdict(result) for result in self.tasks],
            "bits": {kind: {str(i): asdict(cell) for i, cell in row.items()}
                     for kind, row in self.grid.rows.items()},
            "bits_outside_layers": {k: asdict(cell) for k, cell in self.grid.others.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class TextRead:
    """The text: its name, hash, and how it was read."""

    name: str
    sha256: str
    bytes: int
    ctx: int
    chunks: int | None


@dataclass(frozen=True)
class Report:
    """All of a report.

    words      which file to take and why, a sentence each
    chosen     the label of that file; None where the rule has no answer
    models     smallest first
    threads    that computed
    rounds     of the speed tests
    """

    title: str
    words: tuple[str, ...]
    chosen: str | None
    models: tuple[Figures, ...]
    reference: str | None
    text: TextRead
    machine: Doctor
    threads: int
    rounds: int
    written: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; figures as they were measured, unrounded."""
        return {
            "title": self.title,
            "words": list(self.words),
            "chosen": self.chosen,
            "reference": self.reference,
            "models": [model.to_dict() for model in self.models],
            "text": asdict(self.text),
            "threads": self.threads,
            "rounds": self.rounds,
            "machine": self.machine.to_dict(),
            "written": self.written,
            "command": self.command,
        }
