"""What a finished distillation gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.training._result import as_dict


@dataclass(frozen=True)
class DistillResult:
    """A student and its figures.

    student         the type, or the file that was trained
    gguf            the file, as large as the one it began as but for its keys
    best_step       after which the student was best, which is the one written; 0: as it began
    kld_before, kld_after   mean KL(teacher ‖ file) in nats of the first file and the last, run by
                    the engine, over `compared` tokens that neither trained nor chose the student
    same_top_before, same_top_after   how often both put the same token first
    kld_torch       mean KL(student in torch ‖ file): rounding only
    seconds         spent on steps
    fixed           tensors that were not trained
    plot            None without matplotlib
    """

    student: str
    path: Path
    gguf: Path
    gguf_bytes: int
    parameters: int
    steps: int
    tokens: int
    best_step: int
    kld_before: float
    kld_after: float
    same_top_before: float
    same_top_after: float
    compared: int
    kld_torch: float
    seconds: float
    fixed: tuple[str, ...]
    plot: Path | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return as_dict(self)
