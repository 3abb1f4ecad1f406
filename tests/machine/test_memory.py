"""The memory that is free, on machines and in containers made of files."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from trit.machine.memory import free_memory

GIB = 1 << 30


def free(root: Path, files: Mapping[str, str]) -> int | None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return free_memory(root)


def machine(gib: int) -> dict[str, str]:
    lines = [f"MemTotal: {99 << 20} kB", f"MemAvailable: {gib << 20} kB", "HugePages_Total: 0"]
    return {"proc/meminfo": "\n".join(lines)}


def v2(path: str) -> dict[str, str]:
    return {"proc/self/cgroup": f"0::{path}"}


def group(folder: str, limit: str, used: int, inactive: int = 0, active: int = 0) -> dict[str, str]:
    """A version 2 group; GiB, but for `limit`."""
    top = "sys/fs/cgroup/" + folder
    stat = [f"file {9 * GIB}", f"inactive_file {inactive * GIB}", f"active_file {active * GIB}"]
    return {
        f"{top}memory.max": limit,
        f"{top}memory.current": str(used * GIB),
        f"{top}memory.stat": "\n".join(stat),
    }


def v1(folder: str, limit: int, used: int, inactive: int = 0, active: int = 0) -> dict[str, str]:
    top = "sys/fs/cgroup/memory/" + folder
    stat = {"inactive_file": 0, "active_file": 0, "total_inactive_file": inactive * GIB,
            "total_active_file": active * GIB}  # fmt: skip
    return {
        "proc/self/cgroup": "12:memory:/docker/x\n4:cpu,cpuacct:/elsewhere\n0::/",
        f"{top}memory.limit_in_bytes": str(limit),
        f"{top}memory.usage_in_bytes": str(used * GIB),
        f"{top}memory.stat": "\n".join(f"{name} {value}" for name, value in stat.items()),
    }


FOUR = str(4 * GIB)
SIX = str(6 * GIB)
NO_LIMIT = 9223372036854771712  # as v1 says it


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        ({}, 8),
        (v2("/"), 8),
        ({**v2("/"), **group("", "max", 3)}, 8),
        ({**v2("/"), **group("", FOUR, 1)}, 3),
        ({**v2("/"), **group("", str(40 * GIB), 1)}, 8),
        ({**v2("/"), **group("", FOUR, 3, inactive=2)}, 3),  # the page cache makes room
        ({**v2("/"), **group("", FOUR, 3, inactive=1, active=1)}, 3),
        ({**v2("/"), **group("", FOUR, 4)}, 0),
        ({**v2("/"), **group("", FOUR, 5)}, 0),  # a limit that was lowered
        ({**v2("/"), **group("", FOUR, 1, inactive=2)}, 4),  # figures of two moments
        ({**v2("/a/b"), **group("a/b/", "max", 1), **group("a/", FOUR, 2)}, 2),
        ({**v2("/a/b"), **group("a/b/", FOUR, 1), **group("a/", SIX, 5)}, 1),
        ({**v2("/a/b"), **group("a/b/", FOUR, 2), **group("a/", SIX, 2), **group("c/", "1", 4)}, 2),
        ({**v2("/host/only"), **group("", FOUR, 1)}, 3),  # the path is the host's, the mount ours
        ({**v2("/"), "sys/fs/cgroup/memory.max": FOUR}, 8),  # used, but how much?
        ({**v2("/"), **group("", "nonsense", 1)}, 8),
        (v1("", NO_LIMIT, 3), 8),
        (v1("", 4 * GIB, 3), 1),
        (v1("", 4 * GIB, 3, inactive=1, active=1), 3),
        (v1("docker/x/", 4 * GIB, 1), 3),
        (v1("elsewhere/", 4 * GIB, 1), 8),
        ({**v1("docker/x/", NO_LIMIT, 1), **v1("docker/", 4 * GIB, 3)}, 1),
    ],
)
def test_limits_are_kept(tmp_path: Path, files: Mapping[str, str], gib: int) -> None:
    assert free(tmp_path, {**machine(8), **files}) == gib * GIB


@pytest.mark.parametrize("text", ["", "MemFree: 5 kB", "MemAvailable:", "MemAvailable: many kB"])
def test_a_system_that_does_not_tell(tmp_path: Path, text: str) -> None:
    assert free(tmp_path, {"proc/meminfo": text}) is None
    assert free_memory(tmp_path / "nowhere") is None
