"""benchmarks/peers.py: it runs with the engines there are, and its arithmetic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trit.synth import synth
from trit.synth.shapes import custom

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "peers.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def no_peers(tmp_path: Path) -> str:
    """An interpreter without packages, as one has where no peer is installed."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    return str(bare)


def test_without_peers_their_columns_are_left_out(tmp_path: Path, no_peers: str) -> None:
    model = tmp_path / "tiny.gguf"
    synth(custom(layers=1, width=256, heads=4, ffn=256, vocab=300), model, "Q8_0")
    out = tmp_path / "out.json"
    done = run(str(model), "-r", "2", "-p", "8", "-n", "4", "-t", "1", "--json", str(out),
               "--llama-python", no_peers, "--ik-python", no_peers)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "llama.cpp: left out" in done.stderr and "ik_llama.cpp: left out" in done.stderr
    assert "| model | trit | limit |" in " ".join(done.stdout.split())
    found = json.loads(out.read_text())
    assert list(found["engines"]) == ["trit"]
    assert [row["test"] for row in found["rows"]] == ["prefill", "decode"]
    for row in found["rows"]:
        assert len(row["tokens_per_second"]["trit"]) == 2 == len(row["limits"])
        assert row["share"] > 0


def test_an_engine_that_fails_is_named(tmp_path: Path, no_peers: str) -> None:
    done = run(str(tmp_path / "none.gguf"), "--llama-python", no_peers)
    assert done.returncode == 1
    assert "peers: trit: load:" in done.stderr and "none.gguf" in done.stderr


def test_a_peer_for_another_machine_is_refused() -> None:
    from peers import check_build

    full = "AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 |"
    poor = "AVX2 = 1 | AVX512 = 0 |"
    check_build("llama.cpp", full, None, machine="flags: avx2 avx512_vnni")
    check_build("llama.cpp", poor, None, machine="flags: avx2")
    check_build("llama.cpp", poor, "avx2", machine="flags: avx2 avx512_vnni")
    with pytest.raises(SystemExit, match="lacks AVX-512 VNNI"):
        check_build("llama.cpp", poor, None, machine="flags: avx2 avx512_vnni")
    with pytest.raises(SystemExit, match="--isa is avx2"):
        check_build("llama.cpp", full, "avx2", machine="flags: avx2 avx512_vnni")


def test_medians_ratios_and_shares() -> None:
    from peers_table import Row, table

    row = Row("1b-Q4_K_M", "decode", 32, {}, 100.0)
    row.samples = {"trit": [4.0, 6.0, 9.0], "llama.cpp": [4.0, 2.0, 3.0], "ik_llama.cpp": [8, 8, 8]}
    row.limits = [1000.0, 800.0, 1200.0]
    made = row.to_dict()
    assert made["median"] == {"trit": 6.0, "llama.cpp": 3.0, "ik_llama.cpp": 8}
    assert made["ratio"] == {"llama.cpp": 3.0, "ik_llama.cpp": 0.75}
    assert made["share"] == pytest.approx(0.6)
    lines = table([row]).splitlines()
    head, figures = (" ".join(lines[number].split()) for number in (2, 4))
    assert head == "| model | trit | llama.cpp | ratio | ik | ratio | limit |"
    assert figures == "| 1b-Q4_K_M | 6 | 3 | 3.00 | 8 | 0.75 | 60% |"
    assert len({len(line) for line in lines[2:]}) == 1 and len(lines[2]) <= 80
