"""How many threads compute fastest: one per physical core that this process may use.

Linux tells all of it in files. Affinity (taskset, a container's cpuset) says which processors; of a
hybrid CPU the efficient cores would only be waited for, so they are left out where the kernel names
the fast ones; two hyperthreads share one core's int8 units and gain nothing; a cgroup's quota (a
container's --cpus) stops all threads once it is used up, so a fraction of a processor is not used.
Other systems tell the number of processors.

Sources: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max), scheduler/sched-bwc.rst (v1),
ABI/stable/sysfs-devices-system-cpu; /sys/devices/cpu_core is the perf unit of a hybrid Intel CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trit.machine._cgroups import cgroups

MAX_THREADS = 1024  # that the core starts (core/bindings.cpp)


def default_threads(root: Path = Path("/")) -> int:
    """Threads to compute with, 1 to MAX_THREADS. `root`: where /proc and /sys are."""
    if not hasattr(os, "sched_getaffinity"):
        return min(os.cpu_count() or 1, MAX_THREADS)
    usable: set[int] = set(os.sched_getaffinity(0))
    fast = _processors(root / "sys/devices/cpu_core/cpus")
    count = len(_cores(usable & fast or usable, root))
    return max(1, min([count, MAX_THREADS, *_quotas(root)]))


def _cores(processors: set[int], root: Path) -> set[frozenset[int]]:
    """The physical cores of these processors, each as its hyperthreads."""
    folder = root / "sys/devices/system/cpu"
    return {
        frozenset(_processors(folder / f"cpu{each}/topology/thread_siblings_list") or {each})
        for each in processors
    }


def _processors(path: Path) -> set[int]:
    """The numbers of a list such as "0-3,8"; none where the file is missing or empty."""
    try:
        ranges = [each.partition("-") for each in path.read_text().strip().split(",") if each]
        return {n for low, _, high in ranges for n in range(int(low), int(high or low) + 1)}
    except (OSError, ValueError):
        return set()


def _quotas(root: Path) -> Iterator[int]:
    """Whole processors that each cgroup around this process may use; a limit of any counts."""
    for group in cgroups("cpu", root):
        quota = _quota(group)
        if quota is not None:
            yield quota


def _quota(group: Path) -> int | None:
    """quota // period of one cgroup, v2 or v1; None where it has no limit, or no such folder."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) // int(period) if int(quota) >= 0 else None  # v1: -1 is no limit
    except (OSError, ValueError, ZeroDivisionError):  # v2: "max" is none
        return None
