"""Ternary weights by additions alone (TRIT_TERNARY=add): the bits of the dots, no multiplication.

Two-bit codes of any value are multiplied, the code 3 too, which no encoder writes: files hold what
they hold.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_plan import Parts, small_plan
from test_kernels import COLUMNS, filled, product, random_activations, random_matrix, random_signs

from trit import _core
from trit.engine import Engine, Rows
from trit.errors import UsageError

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "core"
NAMES = [row["name"] for row in _core.formats() if row["adds"]]
TOKENS = 40


def test_the_formats_are_the_ternary_ones() -> None:
    assert NAMES == ["tq1_0", "tq2_0"]


@pytest.mark.parametrize("name", NAMES)
def test_products_are_the_bits_of_the_dots(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one token to more than a block of them; 21 rows: a tile and a part of one."""
    weights = random_matrix(name, 21, 768, seed=4)
    x, signs = random_activations(768), random_signs(19, 768)
    for count in (*range(1, 10), 19):
        found = {}
        for path in ("dot", "add"):
            monkeypatch.setenv("TRIT_TERNARY", path)
            found[path] = product(weights, x, signs[:count], isa, monkeypatch, threads=2)
        assert found["dot"].std() > 0
        assert found["add"].tobytes() == found["dot"].tobytes(), count


@pytest.mark.parametrize("fill", [0x00, 0x55, 0xAA, 0xFF])
@pytest.mark.parametrize("name", NAMES)
def test_sums_at_the_ends_of_their_range_are_exact(
    name: str, fill: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All codes equal, all activations ±127, over more columns than BitNet-2B's widest, 6912."""
    monkeypatch.setenv("TRIT_TERNARY", "add")
    weights = filled(name, fill, 17, COLUMNS)
    signs = np.ones((6, COLUMNS), np.float32)
    signs[1] = -1
    signs[2, ::2] = -1
    signs[3, 1::2] = -1
    signs[4, ::4] = -1
    signs[5] = random_signs(1, COLUMNS)
    found = product(weights, np.full(COLUMNS, 127, np.float32), signs, isa, monkeypatch)
    values = weights.decode()[0].astype(np.int64)
    assert (values == weights.decode()).all() and COLUMNS > 6912
    assert name != "tq2_0" or (values == (fill & 3) - 1).all()
    expected = 127 * signs.astype(np.int64) @ values
    assert np.array_equal(found, np.repeat(expected[:, None], 17, axis=1))


@pytest.mark.parametrize("experts", [0, 5])
def test_models_give_the_same_logits(
    experts: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ternary beside other formats, in one pass, token by token and in between."""
    parts = Parts(formats=(*NAMES, "q4_k"), layers=2, inner=512, experts=experts, top_k=2)
    plan, tensors = small_plan(parts, seed=2)
    tokens = np.random.default_rng(3).integers(0, plan.vocab_size, TOKENS).tolist()
    monkeypatch.setenv("TRIT_ISA", isa)
    monkeypatch.delenv("TRIT_TERNARY", raising=False)
    dots = Engine(plan, tensors, threads=2, ctx=64)
    expected = dots.forward(Rows.of(tokens), range(TOKENS))
    assert dots.ternary == "dot" and expected.std() > 0.1
    monkeypatch.setenv("TRIT_TERNARY", "add")
    for size, repack in ((TOKENS, True), (3, False), (1, True)):
        engine = Engine(plan, tensors, threads=2, ctx=64, repack=repack)
        assert engine.ternary == "add"
        for start in range(0, TOKENS, size):
            piece = Rows.of(tokens[start : start + size], start)
            found = engine.forward(piece, range(len(piece.tokens)))
            assert found.tobytes() == expected[start : start + size].tobytes(), (size, start)


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, tensors = small_plan(Parts(formats=("q8_0",)), seed=1)
    monkeypatch.setenv("TRIT_TERNARY", "add")
    assert Engine(plan, tensors, threads=1, ctx=8).ternary is None
    monkeypatch.setenv("TRIT_TERNARY", "multiply")
    with pytest.raises(UsageError, match="TRIT_TERNARY=multiply: expected dot or add"):
        Engine(plan, tensors, threads=1, ctx=8)


def test_other_formats_have_no_additions(isa: str) -> None:
    row = np.zeros((1, 84), np.uint8)
    with pytest.raises(ValueError, match="q2_k has no products by additions"):
        _core.Model().add_weight(isa, "q2_k", row, 256, False, True)


# What CMake compiles each instruction set with.
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
FLAGS = {
    "scalar": (),
    "avx2": AVX2,
    "avxvnni": (*AVX2, "-mavxvnni"),
    "avx512": AVX512,
    "amx": (*AVX512, "-mamx-tile", "-mamx-int8"),
}
MULTIPLICATION = re.compile(r"^\t(v?p?i?mul|v?pmadd|v?pdp|tdp|v?fn?m(add|sub)|v?dpp|v?mpsadbw)")
OF_FLOATS = re.compile(r"^\tv?(mul|fn?m(add|sub)\d*)[ps]s\s")


def compiled(isa: str, *arguments: str) -> None:
    """Compile the driver beside this file; skips without a compiler for this machine's kind."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("no C++ compiler for x86-64 is on the path")
    options = ["-std=c++20", "-O3", "-ffp-contract=off", f"-DTRIT_ISA_{isa.upper()}", *FLAGS[isa]]
    command = [compiler, *options, f"-I{CORE}", str(HERE / "add_product.cpp"), *arguments]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize("target", FLAGS)
@pytest.mark.unsanitized
def test_no_instruction_multiplies_weights_by_activations(target: str, tmp_path: Path) -> None:
    """The scales, one for each sum, are floats; all else is added."""
    compiled(target, "-S", "-o", str(tmp_path / "out.s"))
    text = (tmp_path / "out.s").read_text()
    body = text.split("\nadd_panel:\n")[1].split("\t.size\tadd_panel")[0].splitlines()
    assert {line.split()[1] for line in body if line.startswith("\tcall")} <= {"fmaf", "fmaf@PLT"}
    found = [line for line in body if MULTIPLICATION.search(line)]
    floats = [line for line in found if OF_FLOATS.search(line)]
    assert floats and len(body) > 100
    assert found == floats


@pytest.mark.parametrize("target", FLAGS)
@pytest.mark.unsanitized
def test_both_arrangements_of_the_activations(target: str, isas: list[str], tmp_path: Path) -> None:
    """Exact sums of blocks of 1 to 16 tokens, arranged for vectors and for AMX's tiles.

    The products need no tiles: AMX's can run wherever AVX-512's can.
    """
    if target not in isas and not (target == "amx" and "avx512" in isas):
        pytest.skip(f"this machine has no {target}")
    compiled(target, "-o", str(tmp_path / "driver"))
    run = subprocess.run([tmp_path / "driver"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout
    assert run.stdout == "32 products, 0 wrong\n"
