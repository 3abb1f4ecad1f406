"""The default number of threads, on machines and in containers made of files."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from trit.machine.processors import MAX_THREADS, default_threads

EIGHT = range(8)
Machine = Callable[[range, Mapping[str, str]], int]

if not hasattr(os, "sched_getaffinity"):
    pytest.skip("this system has no affinity to ask for", allow_module_level=True)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine(affinity, files)`: the threads chosen where /proc and /sys hold these files."""

    def threads(affinity: range, files: Mapping[str, str]) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(affinity))
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return default_threads(tmp_path)

    return threads


def siblings(*groups: str) -> dict[str, str]:
    """Files that say which processors share a core: "0,4" or "0-1", one group per core."""
    files = {}
    for group in groups:
        separator = "-" if "-" in group else ","
        for each in group.split(separator):
            files[f"sys/devices/system/cpu/cpu{each}/topology/thread_siblings_list"] = group
    return files


def v2(path: str, **quotas: str) -> dict[str, str]:
    """A process in the version 2 group `path`; cpu.max by folder, "/" spelt "__", root "_"."""
    files = {"proc/self/cgroup": f"0::{path}"}
    for group, text in quotas.items():
        folder = "" if group == "_" else group.replace("__", "/") + "/"
        files[f"sys/fs/cgroup/{folder}cpu.max"] = text
    return files


def v1(path: str, quota: int, folder: str = "") -> dict[str, str]:
    lines = ["12:memory:/elsewhere", f"4:cpu,cpuacct:{path}", "0::/"]
    return {
        "proc/self/cgroup": "\n".join(lines),
        f"sys/fs/cgroup/cpu/{folder}cpu.cfs_quota_us": str(quota),
        f"sys/fs/cgroup/cpu/{folder}cpu.cfs_period_us": "100000",
    }


def test_affinity_counts_where_nothing_else_is_told(machine: Machine) -> None:
    assert machine(range(3), {}) == 3


@pytest.mark.parametrize(
    ("affinity", "groups", "expected"),
    [
        (EIGHT, ("0,4", "1,5", "2,6", "3,7"), 4),
        (EIGHT, ("0-1", "2-3", "4-5", "6-7"), 4),
        (EIGHT, ("0", "1", "2", "3", "4", "5", "6", "7"), 8),
        (range(4), ("0,4", "1,5", "2,6", "3,7"), 4),  # one thread of each core
        (range(2), ("0-1", "2-3"), 1),  # two threads of one
    ],
)
def test_one_thread_per_core(
    machine: Machine, affinity: range, groups: tuple[str, ...], expected: int
) -> None:
    assert machine(affinity, siblings(*groups)) == expected


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [(EIGHT, 2), (range(1, 6), 2), (range(4, 8), 4)],  # the last: efficient cores only, all used
)
def test_a_hybrid_cpu_computes_on_its_fast_cores(
    machine: Machine, affinity: range, expected: int
) -> None:
    cores = siblings("0-1", "2-3", "4", "5", "6", "7")
    assert machine(affinity, {**cores, "sys/devices/cpu_core/cpus": "0-3"}) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (v2("/", _="max 100000"), 8),
        (v2("/", _="300000 100000"), 3),
        (v2("/", _="250000 100000"), 2),  # rounded down
        (v2("/", _="50000 100000"), 1),  # but one thread there must be
        (v2("/", _="1600000 100000"), 8),
        (v2("/a/b", a__b="max 100000", a="200000 100000"), 2),  # the group around it
        (v2("/a/b", a__b="400000 100000", a="600000 100000"), 4),
        (v2("/a/b", a__b="600000 100000", a="400000 100000", c="100000 100000"), 4),
        (v2("/host/only", _="300000 100000"), 3),  # the path is the host's, the mount is ours
        (v2("/../b", b="300000 100000"), 3),
        (v2("/", _="nonsense"), 8),
        (v2("/", _="100000 0"), 8),
        (v1("/", -1), 8),
        (v1("/", 250_000), 2),
        (v1("/docker/x", 300_000, "docker/"), 3),
        (v1("/docker/x", 300_000), 3),
    ],
)
def test_a_quota_is_kept(machine: Machine, files: Mapping[str, str], expected: int) -> None:
    assert machine(EIGHT, files) == expected


def test_quota_and_cores_together(machine: Machine) -> None:
    cores = siblings("0-1", "2-3", "4-5", "6-7")
    assert machine(EIGHT, {**cores, **v2("/", _="600000 100000")}) == 4
    assert machine(EIGHT, {**cores, **v2("/", _="300000 100000")}) == 3


def test_files_that_hold_nonsense_are_passed_over(machine: Machine) -> None:
    files = {
        "sys/devices/cpu_core/cpus": "all of them",
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "",
        "sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "1-x",
    }
    assert machine(range(2), files) == 2


def test_without_affinity_every_processor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert default_threads() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 2048)
    assert default_threads() == MAX_THREADS == 1024


def test_no_more_than_the_core_starts(machine: Machine) -> None:
    assert machine(range(1500), {}) == MAX_THREADS
