"""What a folder for other engines can be, and what one is told of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trit.errors import UnsupportedError, UsageError

PathLike = str | os.PathLike[str]

BITS = {  # of each target
    "awq": (4,),
    "compressed-tensors": (2, 3, 4, 5, 6, 7, 8),
    "hqq": (1, 2, 3, 4, 8),
}
QUANTIZERS = ("rtn", "hqq", "awq", "gptq")
MEASURED = ("awq", "gptq")  # they want a text


@dataclass(frozen=True)
class Exported:
    """What was written, or would be. `bits_per_weight` counts everything but copied texts.

    `weighted` linears were rounded by what their inputs carry; of that, `salient` is the share of
    the 1% of the channels that carry most, where it was measured (awq). `changed` linears have
    factors other than 1 (awq), or error feedback that was better than none (gptq).
    """

    path: Path | None
    target: str
    bits: int
    group_size: int
    quantizer: str
    linears: int
    weights: int
    bytes: int
    warnings: tuple[str, ...]
    weighted: int = 0
    seconds: float = 0.0
    salient: float | None = None
    changed: int | None = None

    @property
    def bits_per_weight(self) -> float:
        """Of all tensors."""
        return 8 * self.bytes / self.weights


def usual_quantizer(target: str) -> str:
    """What rounds for a target unless one is named."""
    return "hqq" if target == "hqq" else "rtn"


def check(target: str, bits: int, group_size: int, quantizer: str, symmetric: bool) -> None:
    """UsageError for settings that no folder can have."""
    if target not in BITS:
        raise UsageError(f"cannot write '{target}': expected one of {', '.join(BITS)}.")
    if bits not in BITS[target]:
        known = ", ".join(str(b) for b in BITS[target])
        raise UsageError(f"{target} of {bits} bits: expected {known}.")
    if group_size < 8 or group_size % 8:
        raise UsageError(f"groups of {group_size}: expected a multiple of 8, such as 128.")
    if quantizer not in QUANTIZERS:
        known = ", ".join(QUANTIZERS)
        raise UsageError(f"quantizer '{quantizer}': for folders expected one of {known}.")
    if symmetric and (target, quantizer) != ("compressed-tensors", "rtn"):
        raise UsageError("grids without zeros are those of rtn on compressed-tensors.")


def folder_of(src: PathLike) -> Path:
    """The folder `src` is; UnsupportedError for anything else."""
    folder = Path(src)
    if not (folder.is_dir() and (folder / "config.json").is_file()):
        raise UnsupportedError(
            f"{folder}: folders are written from folders of config.json and safetensors; "
            "a GGUF has not all that they need."
        )
    return folder
