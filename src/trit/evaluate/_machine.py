"""The machine a figure was measured on: its name, what it can do at best, and trit's commit."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trit import _core
from trit.errors import DoesNotFitError
from trit.machine.memory import free_memory
from trit.machine.processors import default_threads
from trit.zoo import _cache

READ_BYTES = 1 << 30  # read to measure the bandwidth; far more than caches hold
QUICK_BYTES = 512 << 20  # enough where a planner asks
NOTES = "machine.json"  # in trit's cache folder: what was measured since the machine was started


@dataclass(frozen=True)
class Limits:
    """What decoding and prefill run into, for this many threads and this instruction set.

    read_bytes_per_second   streaming from memory, all threads
    int8_ops_per_second     products of int8 with operands in cache, all threads; a multiplication
                            and an addition are two operations
    """

    threads: int
    isa: str
    read_bytes_per_second: float
    int8_ops_per_second: float


@cache
def limits(threads: int, isa: str) -> Limits:
    """Measure for about two seconds; once per process. DoesNotFitError without memory for it."""
    return Limits(
        threads, isa, _read_rate(threads, READ_BYTES), float(_core.int8_rate(threads, isa))
    )


def _read_rate(threads: int, most: int) -> float:
    # A quarter of what is free: measuring must not push out the model that is measured.
    free = free_memory()
    count = most if free is None else min(most, free // 4)
    try:
        return float(_core.read_bandwidth(threads, max(count, 1)))
    except MemoryError:
        raise DoesNotFitError(
            f"no {count >> 20} MiB free to measure the memory's bandwidth; use --no-limits."
        ) from None


def busy() -> bool:
    """Whether others compute as well, so that what is measured now says little."""
    try:
        return os.getloadavg()[0] > default_threads() + 0.5
    except (OSError, AttributeError):  # Windows has no such figure
        return False


def read_rate(threads: int, root: Path = Path("/")) -> float:
    """Bytes per second that memory is read with: measured, well below a second on an idle machine.

    Kept in trit's cache folder until the machine is started again, unless it is busy now.
    DoesNotFitError without memory for it. `root`: where /proc is.
    """
    boot = _text(root / "proc/sys/kernel/random/boot_id")
    notes = _cache.load_notes(NOTES)
    rates = notes.get("rates") if boot and notes.get("boot") == boot else None
    kept = rates if isinstance(rates, dict) else {}
    found = kept.get(str(threads))
    if isinstance(found, float) and found > 0:
        return found
    rate = _read_rate(threads, QUICK_BYTES)
    if boot and not busy():
        kept = {**kept, str(threads): rate}
        with contextlib.suppress(OSError):  # a folder that cannot be written costs a second
            _cache.change_notes(NOTES, lambda notes: notes.update(boot=boot, rates=kept))
    return rate


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor's name, as the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def build_commit() -> str:
    """The commit of the source tree trit runs from, shortened; else its version."""
    head = _head(Path(__file__).resolve().parents[3] / ".git")
    if head:
        return head[:9]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trit")
    except PackageNotFoundError:
        return "unknown"


def _head(folder: Path) -> str:
    """What HEAD names, without asking git: a library starts no programs for a label."""
    try:
        if folder.is_file():  # a worktree names its folder
            folder = Path(folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = folder / "commondir"
        if common.is_file():
            folder = Path(os.path.normpath(folder / common.read_text(encoding="utf-8").strip()))
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8").strip()
        packed = (folder / "packed-refs").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.split()[0] for line in packed.splitlines() if line.endswith(f" {name}")), "")
