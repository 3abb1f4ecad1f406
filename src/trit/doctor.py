"""What this machine offers trit, what limits it, and what would make it faster.

    for line in doctor().advice: print(line)

Measured are the memory's bandwidth and the rate of int8 products, which decoding and prefill run
into; the rest is read from the system. Nothing is changed.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trit import _core
from trit.engine import isa
from trit.evaluate._machine import build_commit, busy, cpu_name, limits
from trit.machine.memory import free_memory, memory_limit, total_memory
from trit.machine.processors import default_threads
from trit.zoo._cache import root as cache_root

PACKAGES = ("numpy", "typer", "huggingface_hub", "torch")
FEW_BYTES = 2 << 30  # free memory, or disk, that is little for any model


@dataclass(frozen=True)
class Doctor:
    """What was found; None where the system does not tell, or where it was not measured.

    isas         instruction sets of the core that this processor has, the best first
    isa          the one in use
    processors   that the system shows to this process; `threads`: those that trit computes with
    memory_limit of the tightest cgroup around this process
    int8_ops_per_second   products with their additions, two operations each
    gpus         devices that are there; trit computes on none of them
    advice       sentences on what would make it faster; empty where nothing is known to
    """

    cpu: str
    isas: tuple[str, ...]
    isa: str
    processors: int
    threads: int
    memory_total: int | None
    memory_free: int | None
    memory_limit: int | None
    read_bytes_per_second: float | None
    int8_ops_per_second: float | None
    busy: bool
    large_pages: str | None
    gpus: tuple[str, ...]
    cache_folder: str
    cache_bytes: int
    disk_free: int
    system: str
    versions: dict[str, str]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in made.items()}


def doctor(measure: bool = True, root: Path = Path("/")) -> Doctor:
    """Look at this machine; `measure`: its limits too, for about two seconds and up to 1 GiB.

    `root`: where /proc, /sys and /dev are. DoesNotFitError without memory to measure in.
    """
    threads, chosen = default_threads(root), isa()
    measured = limits(threads, chosen) if measure else None
    folder = cache_root()
    found = Doctor(
        cpu=cpu_name(),
        isas=tuple(_core.isas()),
        isa=chosen,
        processors=_processors(),
        threads=threads,
        memory_total=total_memory(root),
        memory_free=free_memory(root),
        memory_limit=memory_limit(root),
        read_bytes_per_second=None if measured is None else measured.read_bytes_per_second,
        int8_ops_per_second=None if measured is None else measured.int8_ops_per_second,
        busy=busy(),
        large_pages=_large_pages(root),
        gpus=_gpus(root),
        cache_folder=str(folder),
        cache_bytes=_folder_bytes(folder),
        disk_free=shutil.disk_usage(_existing(folder)).free,
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        versions=_versions(),
        advice=(),
    )
    return replace(found, advice=tuple(_advice(found)))


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _large_pages(root: Path) -> str | None:
    """Which memory the system backs with large pages: always, madvise (what asks) or never."""
    try:
        text = (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    return next((word.strip("[]") for word in text.split() if word.startswith("[")), None)


def _gpus(root: Path) -> tuple[str, ...]:
    """NVIDIA's by name, others as the nodes that drivers make for them."""
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if "Model" in line), "")
        found.append(model or "NVIDIA GPU")
    found += [path.name for path in sorted((root / "dev/dri").glob("renderD*")) if not found]
    return tuple(found)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _versions() -> dict[str, str]:
    made = {"trit": f"{_version('trit')} ({build_commit()})", "python": sys.version.split()[0]}
    return made | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _advice(found: Doctor) -> list[str]:
    """What holds it back, the largest first."""
    said = []
    if found.isa != found.isas[0]:
        said.append(f"TRIT_ISA={found.isa} is set; without it {found.isas[0]} is used.")
    if found.isa == "scalar":
        said.append("No vector instructions are used: a processor with AVX2 is several times as "
                    "fast.")  # fmt: skip
    if found.busy:
        said.append("Other programs compute now; what is measured meanwhile is too low.")
    if found.threads < found.processors:
        said.append(
            f"{found.threads} of {found.processors} processors are used: one a physical core, "
            "within the cgroup's quota; more would not help."
        )
    if found.memory_free is not None and found.memory_free < FEW_BYTES:
        said.append("Less than 2 GiB of memory are free: end what is not needed.")
    if found.large_pages == "never":
        said.append("Large pages are off: 'madvise' in /sys/kernel/mm/transparent_hugepage/enabled "
                    "makes decoding faster.")  # fmt: skip
    if found.disk_free < FEW_BYTES:
        said.append(f"Less than 2 GiB are free on the disk of {found.cache_folder}.")
    if found.gpus:
        said.append("There is a GPU, and trit does not use it: it computes on the CPU alone.")
    if found.read_bytes_per_second and not found.busy:
        said.append(
            "Decoding is bound by the memory's bandwidth: fewer bytes of weights make it faster "
            "('trit recommend MODEL')."
        )
    return said
