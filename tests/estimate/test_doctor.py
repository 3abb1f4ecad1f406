"""`trit doctor`: what it reads of a machine, and what it says of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import trit
from trit import _core
from trit.cli import main
from trit.doctor import _advice
from trit.evaluate import _machine
from trit.machine.memory import memory_limit, total_memory


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "READ_BYTES", 8 << 20)
    found = trit.doctor()
    assert found.isas == tuple(_core.isas()) and found.isa in found.isas
    assert 1 <= found.threads <= found.processors
    assert found.read_bytes_per_second and found.int8_ops_per_second
    assert found.versions["torch"] and found.disk_free > 0
    assert json.loads(json.dumps(found.to_dict()))["isas"] == list(found.isas)


def test_what_a_system_tells(tmp_path: Path) -> None:
    """A container of 4 GiB on a machine of 16, with an NVIDIA GPU, large pages off."""
    files = {
        "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/box/memory.max": f"{4 << 30}\n",
        "sys/fs/cgroup/box/memory.current": f"{3 << 30}\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA Thing\nIRQ: 1\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = trit.doctor(measure=False, root=tmp_path)
    assert (found.memory_total, found.memory_limit, found.memory_free) == (
        16 << 30, 4 << 30, 1 << 30,
    )  # fmt: skip
    assert found.gpus == ("NVIDIA Thing",) and found.large_pages == "never"
    said = " ".join(found.advice)
    assert "GPU" in said and "transparent_hugepage" in said and "2 GiB of memory" in said


def test_no_limit_and_nothing_told(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None and total_memory(tmp_path) is None
    folder = tmp_path / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1024 kB\n")
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_limit(tmp_path) is None


def test_advice() -> None:
    """Nothing is said without a reason, and a reason is said."""
    found = trit.doctor(measure=False)
    ideal = replace(
        found, isa=found.isas[0], busy=False, threads=2, processors=2, memory_free=8 << 30,
        large_pages="madvise", disk_free=8 << 30, gpus=(), read_bytes_per_second=None,
    )  # fmt: skip
    if ideal.isa != "scalar":
        assert _advice(ideal) == []
    assert "bandwidth" in _advice(replace(ideal, read_bytes_per_second=2e10))[-1]
    assert any("TRIT_ISA=old" in each for each in _advice(replace(ideal, isa="old")))
    assert any("2 of 8" in each for each in _advice(replace(ideal, processors=8)))
    assert any("disk" in each for each in _advice(replace(ideal, disk_free=1)))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-measure"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and max(map(len, captured.out.splitlines())) <= 80
    for label in ("processor", "instructions", "threads", "memory", "cgroup", "GPU", "cache"):
        assert f"\n{label}" in f"\n{captured.out}"
    assert main(["doctor", "--no-measure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read_bytes_per_second"] is None
