"""What a distillation is made of: its settings, which of them figures depend on, what is refused.

Settings are few and have defaults that were measured (docs/log.md); run.json keeps them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trit import recipe
from trit.errors import UsageError
from trit.training.config import plain

DEVICES = ("auto", "cpu", "cuda")
TERNARY = ("TQ1_0", "TQ2_0")
HELD_OUT = 0.05


@dataclass(frozen=True)
class DistillSettings:
    """How a student is trained.

    student        a type (Q4_K_M, Q4_0 …) that the teacher is first quantized to; TQ1_0 or TQ2_0,
                   a BitNet (ternary.py); or the path of a model, trained in the types it has
    init           the model that a type is made of, in place of the teacher: a pruned one, say
    data           UTF-8 texts; none: text that the teacher writes
    steps, batch, context    steps of `batch` sequences of `context` tokens
    rate           of weights, as a share of the root mean square of their matrix
    scale_rate     of block scales, as a share of each
    warmup         steps in which the rates rise; from there they fall linearly to zero
    top_k          see losses.divergence
    relation       share of the gradient that relations have, see losses.Relations; 0: none
    cross_entropy  weight of the cross entropy with the text itself; the KL has 1
    held_out       share of `data` that is not trained on, HELD_OUT unless given
    measure_every, measure_windows   steps between measurements; sequences that each reads
    imatrix, calibration, effort, tensor_types   of the quantization a type begins with, as
                   quantize() has them
    """

    student: str
    data: tuple[Path, ...] = ()
    init: Path | None = None
    steps: int = 200
    batch: int = 8
    context: int = 256
    rate: float = 1e-3
    scale_rate: float = 1e-3
    warmup: int = 10
    top_k: int = 0
    relation: float = 0.0
    cross_entropy: float = 0.0
    held_out: float | None = None
    measure_every: int = 25
    measure_windows: int = 16
    checkpoint_every: int = 25
    seed: int = 0
    bf16: bool = False
    gradient_checkpointing: bool = False
    device: str = "auto"
    imatrix: Path | None = None
    calibration: str | None = None
    effort: str | None = None
    tensor_types: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether the student is a model, not a type."""
        return not recipe.is_mix(self.student)

    @property
    def share(self) -> float:
        """Of `data`, what is not trained on."""
        return HELD_OUT if self.held_out is None else self.held_out

    @property
    def ternary(self) -> bool:
        """Whether the student is to be a BitNet."""
        return self.student.upper() in TERNARY

    def flat(self) -> dict[str, Any]:
        """Every setting by name, as JSON has it; paths by their last part."""
        found = {name: plain(value) for name, value in asdict(self).items()}
        found["held_out"] = self.share if self.data else None
        if self.is_file:
            found["student"] = Path(self.student).name
        return found


# What may change between two parts of a run: no figure depends on it.
FREE = frozenset({"checkpoint_every"})
_AT_LEAST = {
    "steps": 1, "batch": 1, "context": 2, "rate": 0, "scale_rate": 0, "warmup": 0, "top_k": 0,
    "relation": 0, "cross_entropy": 0, "measure_every": 1, "measure_windows": 1,
    "checkpoint_every": 1, "seed": 0,
}  # fmt: skip


def check(settings: DistillSettings) -> None:
    """UsageError for a setting that cannot be meant."""
    for name, least in _AT_LEAST.items():
        value = getattr(settings, name)
        if not least <= value < float("inf"):
            raise UsageError(f"{flag(name)} {value}: expected {least} or more.")
    if settings.seed >= 1 << 32:
        raise UsageError(f"--seed {settings.seed}: expected less than 2^32.")
    if settings.held_out is not None and not settings.data:
        raise UsageError(
            "--held-out is a share of --data, and there is none: leave it out. The teacher writes "
            "sequences to measure on besides."
        )
    if not 0 < settings.share <= 0.5:
        raise UsageError(f"--held-out {settings.share}: expected a share, 0.5 at most.")
    if settings.device not in DEVICES:
        raise UsageError(f"--device {settings.device}: expected one of {', '.join(DEVICES)}.")
    if settings.is_file and not Path(settings.student).exists():
        raise UsageError(
            f"--student {settings.student}: expected a type such as Q4_K_M, or the path of a "
            "model; it is neither."
        )
    if settings.init is not None and (settings.is_file or not settings.init.exists()):
        problem = "--student is a model already" if settings.is_file else "there is no such model"
        raise UsageError(f"--init {settings.init}: {problem}.")
    wished = settings.imatrix or settings.calibration or settings.effort or settings.tensor_types
    if wished and (settings.is_file or settings.ternary):
        raise UsageError(
            f"--student {settings.student} is not quantized first: leave out --imatrix, "
            "--calibration, --effort and --tensor-type."
        )


def flag(name: str) -> str:
    """A setting as the command line spells it."""
    return "--" + name.replace("_", "-")
