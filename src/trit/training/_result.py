"""What a finished run gives back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Cost:
    """What is ahead. `steps` are left; `seconds` for them, by one step tried, which moved nothing.

    memory_bytes  weights, gradients and the optimizer's memory; activations come on top
    disk_bytes    of the state, twice while it is written, and the model
    """

    parameters: int
    steps: int
    tokens: int
    flops: float
    memory_bytes: int
    disk_bytes: int
    seconds: float
    threads: int


@dataclass(frozen=True)
class TrainResult:
    """A trained model and its figures.

    kind            "ternary" or "float"
    gguf, folder    the file; the Hugging Face folder it was made of
    bits_per_byte   of all text held out, by the model in torch
    held_out_sha256 of its packed tokens: figures of equal ones compare
    kld             mean KL(torch ‖ file) in nats over `compared` tokens held out
    seconds         spent on steps
    fallbacks       tensors whose rows did not fit the type wished for
    plot            None without matplotlib
    """

    kind: str
    path: Path
    gguf: Path
    folder: Path
    gguf_bytes: int
    parameters: int
    steps: int
    tokens: int
    bits_per_byte: float
    held_out_bytes: int
    held_out_sha256: str
    kld: float
    same_top: float
    compared: int
    seconds: float
    fallbacks: tuple[str, ...]
    plot: Path | None

    @classmethod
    def read(cls, path: Path) -> TrainResult:
        """What `to_dict` gave, from a file of JSON."""
        values = json.loads(path.read_text("utf-8"))
        for key in ("path", "gguf", "folder", "plot"):
            values[key] = None if values[key] is None else Path(values[key])
        return cls(**values | {"fallbacks": tuple(values["fallbacks"])})

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return as_dict(self)


def as_dict(result: DataclassInstance) -> dict[str, Any]:
    """A result as JSON has it: paths are texts."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(result).items()
    }


def duration(seconds: float) -> str:
    """For people: '40 seconds', '12 minutes', '3.5 hours'."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
