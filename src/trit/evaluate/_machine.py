"""The machine a figure was measured on: its name, what it can do at best, and trit's commit."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trit import _core
from trit.errors import DoesNotFitError
from trit.machine.memory import free_memory

READ_BYTES = 1 << 30  # read to measure the bandwidth; far more than caches hold


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
    # A quarter of what is free: measuring must not push out the model that is measured.
    free = free_memory()
    count = READ_BYTES if free is None else min(READ_BYTES, free // 4)
    try:
        read = _core.read_bandwidth(threads, max(count, 1))
    except MemoryError:
        raise DoesNotFitError(
            f"no {count >> 20} MiB free to measure the memory's bandwidth; use --no-limits."
        ) from None
    return Limits(threads, isa, float(read), float(_core.int8_rate(threads, isa)))


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
