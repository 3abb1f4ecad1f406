"""How much memory this process can still use without swapping.

Linux tells it in files: what the machine has available, and of every cgroup around the process (a
container's --memory) the limit and what is used of it. Pages of files, those read often too, count
as free in both: the system lets go of them when memory is asked for.

Sources: Linux, Documentation/filesystems/proc.rst (MemAvailable), admin-guide/cgroup-v2.rst
(memory.max, memory.stat), admin-guide/cgroup-v1/memory.rst.
"""

from __future__ import annotations

from pathlib import Path

from trit.machine._cgroups import cgroups


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes; None where the system does not tell. `root`: where /proc and /sys are."""
    available = _table(root / "proc/meminfo").get("MemAvailable:")
    if available is None:
        return None
    left = [_left(group) for group in cgroups("memory", root)]
    return max(0, min([1024 * available, *(each for each in left if each is not None)]))


def total_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the machine has; None where the system does not tell."""
    total = _table(root / "proc/meminfo").get("MemTotal:")
    return None if total is None else 1024 * total


def memory_limit(root: Path = Path("/")) -> int | None:
    """The tightest limit of the cgroups around this process, bytes; None: there is none."""
    limits = []
    for group in cgroups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((group / name).read_text()))
            except (OSError, ValueError):  # v2: "max" is none
                continue
    tightest, total = min(limits, default=None), total_memory(root)
    # v1 has a number beyond any memory where there is no limit.
    return None if tightest is None or (total and tightest > total) else tightest


def anonymous_memory() -> int | None:
    """Bytes resident that this process has beside mapped files; None where that is not told."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left(group: Path) -> int | None:
    """What one cgroup, v2 or v1, still has; None where it has no limit, or no such folder."""
    if (group / "memory.max").exists():
        limit, usage, within = "memory.max", "memory.current", ""
    else:
        limit, usage, within = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
    try:
        most, used = (int((group / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # v2: "max" is none; v1 has a number beyond any memory
        return None
    stat = _table(group / "memory.stat")
    files = sum(stat.get(f"{within}{kind}_file", 0) for kind in ("inactive", "active"))
    return most - max(0, used - files)


def _table(path: Path) -> dict[str, int]:
    """Lines of a name, a number and perhaps a unit; empty where the file is missing."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) > 1}
    except (OSError, ValueError):
        return {}
