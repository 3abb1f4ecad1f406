"""What an answer took: tokens per second, the first token, memory."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trit.cli._terminal import counted, size
from trit.machine.memory import anonymous_memory
from trit.runtime.needs import needs_now

if TYPE_CHECKING:
    from trit.runtime.generate import Stats
    from trit.runtime.model import Model

_IMPORTED = time.monotonic()


@dataclass(frozen=True)
class Memory:
    """Bytes: weights, those of them copied from the file into a faster order, cache of keys and
    values, and all that is resident beside the file's pages (the copy included).

    predicted   what `trit estimate` says of the positions that are held now
    actual      `resident`, and the weights that are read from the file
    """

    weights: int
    copied: int
    cache: int
    resident: int | None
    predicted: int
    actual: int | None

    @classmethod
    def now(cls, model: "Model") -> "Memory":
        """Of this process; `resident` where the system tells (Linux)."""
        engine = model.engine
        resident = anonymous_memory()
        return cls(
            weights=model.weight_bytes,
            copied=engine.tile_bytes(),
            cache=engine.cache_bytes(),
            resident=resident,
            predicted=needs_now(engine, model.weight_bytes, model.metadata).total,
            actual=None if resident is None else resident + engine.mapped_bytes(),
        )

    def __str__(self) -> str:
        kept = "copied" if self.copied else "mapped"
        text = f"{size(self.weights)} of weights {kept}, {size(self.cache)} of cache"
        if self.actual is not None:
            text += f", {size(self.actual)} in all"
        return text

    def rows(self) -> list[tuple[str, str]]:
        """Label and text: what is taken, and what 'trit estimate' makes of as many positions."""
        return [("memory", str(self)), ("predicted", f"{size(self.predicted)} in all")]


def seconds_since_start() -> float:
    """Since this process was started, to 10 ms: what `first_token_seconds` counts from.

    Python's own start and every import are in it. Where the system does not tell (it does on
    Linux), since the command was imported.
    """
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
        started = int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")  # since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def speeds(stats: "Stats") -> list[tuple[str, str]]:
    """Label and text of the prompt, of the generation, and of guesses if there were any."""
    read = counted(stats.prompt_tokens, "token")
    if stats.cached_tokens:
        read += f", {stats.cached_tokens} of them still in the cache"
    written = counted(stats.tokens, "token")
    if stats.generation_tps is not None:
        written += f", {stats.generation_tps:.1f} t/s"
    rows = [("prompt", f"{read}, {stats.prompt_tps:.1f} t/s"), ("generation", written)]
    if stats.drafted_tokens:
        guessed = counted(stats.drafted_tokens, "token")
        rows.append(("guessed ahead", f"{guessed}, {stats.accepted_tokens} of them right"))
    return rows
