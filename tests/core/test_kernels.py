"""Products of the core, on every instruction set, bit for bit those of the same sums in numpy.

A plan without layers makes a product visible: of inputs ±1 the output norm is its own weight with
their signs, so the activations are chosen to the bit and the logits are a matrix times them.

The arithmetic: activations are rounded to int8 in blocks of 32 columns (nearest even of
x · (127 / largest)); sums of products are exact integers per group of columns that share a scale;
groups are scaled into a block, blocks folded in order, by fused multiply-adds in float32.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import head_only, random_blocks

from trit import _core, formats
from trit.engine import Engine
from trit.files.gguf import Tensor

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

ROWS = {row["name"]: row for row in _core.formats()}
INTEGER = [name for name, row in ROWS.items() if row["integer"]]
FLOAT = [name for name, row in ROWS.items() if not row["integer"]]
OFFSETS = {
    **{"q4_0": 8, "q5_0": 16, "q3_k": 4, "q6_k": 32, "tq1_0": 1, "tq2_0": 1},
    **{"q8_0": 128, "iq4_nl": 128, "iq4_xs": 128},
}
BLOCK, CHUNK = 32, 256
TINY = np.finfo(np.float32).tiny
COLUMNS = 8960  # the widest of the zoo's matrices, and a multiple of 256


def tensor(name: str, data: Bytes) -> Tensor:
    """Rows (rows, row_bytes) of a format as a tensor."""
    format = formats.get(name)
    cols = data.shape[1] // format.block_bytes * format.block_weights
    return Tensor("w", (len(data), cols), format, np.ascontiguousarray(data))


def random_matrix(name: str, rows: int, cols: int, seed: int = 0) -> Tensor:
    blocks = random_blocks(name, rows * cols // formats.get(name).block_weights, seed)
    return tensor(name, blocks.reshape(rows, -1))


def product(
    weights: Tensor,
    activations: Floats,
    signs: Floats,
    isa: str,
    monkeypatch: pytest.MonkeyPatch,
    threads: int = 1,
) -> Floats:
    """What the core makes of weights (rows, cols) · (signs (n, cols) · activations (cols,))."""
    monkeypatch.setenv("TRIT_ISA", isa)
    engine = Engine(*head_only(weights, activations), threads=threads)
    assert engine.isa == isa
    return engine.head(signs)


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """a · b + c, rounded once to float32: by way of float64 rounded to odd, which loses nothing."""
    exact = a.astype(np.float64) * b
    total = exact + c
    back = total - exact
    error = (exact - (total - back)) + (c - back)
    even = (total.view(np.int64) & 1) == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & even, np.nextafter(total, toward), total)
    return odd.astype(np.float32)


def rounded(x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Activations (n, cols) -> codes (n, blocks, 32) and their scales (n, blocks)."""
    blocks = x.reshape(len(x), -1, BLOCK)
    largest = np.abs(blocks).max(axis=2)
    scales = largest / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scales >= TINY, np.float32(127) / largest, np.float32(0))
    return np.rint(blocks * inverse[..., None]).astype(np.int64), scales


def grid(weights: Tensor) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Factors (rows, cols), and scales and minimums (rows, groups) that are theirs."""
    parts = []
    row_bytes = formats.get(weights.format.name).row_bytes
    for row in range(0, weights.rows, 16):
        for column in range(0, weights.cols, CHUNK):
            columns = min(CHUNK, weights.cols - column)
            data = weights.data[row : row + 16, row_bytes(column) : row_bytes(column + columns)]
            data = np.ascontiguousarray(np.resize(data, (16, data.shape[1])))
            parts.append((row, *_core.panel(weights.format.name, data, columns, "scalar")))
    joined = [[p for p in parts if p[0] == row] for row in range(0, weights.rows, 16)]
    codes = [np.concatenate([p[1] for p in tile]).transpose(1, 0, 2).reshape(16, -1)
             for tile in joined]  # fmt: skip
    scales, mins = (
        np.concatenate([np.concatenate([p[i] for p in tile]).T for tile in joined])[: weights.rows]
        for i in (2, 3)
    )
    offset = OFFSETS.get(weights.format.name, 0)
    return np.concatenate(codes)[: weights.rows].astype(np.int64) - offset, scales, mins


def emulated(weights: Tensor, x: Floats) -> Floats:
    """The product (n, rows) of x (n, cols) as the core's integer kernels define it."""
    factors, scales, mins = grid(weights)
    codes, x_scales = rounded(x)
    group = weights.cols // scales.shape[1]
    with_mins = weights.format.name not in OFFSETS
    total = np.zeros((len(x), weights.rows), np.float32)
    for block in range(weights.cols // BLOCK):
        part = np.zeros_like(total)
        sums = []
        for g in range(block * BLOCK // group, (block + 1) * BLOCK // group):
            at = slice(g * group - block * BLOCK, (g + 1) * group - block * BLOCK)
            inside = codes[:, block, at]
            sum_ = (inside @ factors[:, g * group : (g + 1) * group].T).astype(np.float32)
            part = fma(sum_, np.broadcast_to(scales[:, g], total.shape), part)
            sums.append((g, x_scales[:, block] * inside.sum(axis=1).astype(np.float32)))
        total = fma(part, np.broadcast_to(x_scales[:, block, None], total.shape), total)
        for g, sum_ in sums if with_mins else []:
            total = fma(np.broadcast_to(-mins[:, g], total.shape), sum_[:, None], total)
    return total


def emulated_float(weights: Floats, x: Floats) -> Floats:
    """The same for types multiplied in float: even and odd columns apart, in chunks of 256."""
    total = np.zeros((len(x), len(weights)), np.float32)
    for column in range(0, weights.shape[1], CHUNK):
        sums = [np.zeros_like(total), np.zeros_like(total)]
        for i in range(column, min(column + CHUNK, weights.shape[1])):
            sums[i % 2] = fma(
                x[:, i, None], np.broadcast_to(weights[:, i], total.shape), sums[i % 2]
            )
        total = total + (sums[0] + sums[1])
    return total


def random_signs(rows: int, cols: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).choice([-1.0, 1.0], (rows, cols)).astype(np.float32)


def random_activations(cols: int, seed: int = 0) -> Floats:
    """Of very different sizes, with zero blocks, ties and single large values among them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(cols) * 10.0 ** random.integers(-4, 4, cols // BLOCK).repeat(BLOCK)
    x[:BLOCK] = 0
    x[BLOCK : 2 * BLOCK] = np.arange(BLOCK) / 2  # halves: ties of rounding
    x[BLOCK + 1] = 127
    x[2 * BLOCK + 5] = 1e4
    return x.astype(np.float32)


Case = tuple[Tensor, Floats, Floats, Floats]


@cache  # every instruction set is held to it
def integer_case(name: str, cols: int) -> Case:
    """Weights, activations, signs, and the product (11, 21) that they make.

    21 rows: a tile and a part of one. 11 inputs: whole blocks of a batch and a part of one.
    """
    weights = random_matrix(name, 21, cols, seed=cols)
    x, signs = random_activations(cols + 64, seed=cols)[:cols], random_signs(11, cols)
    return weights, x, signs, emulated(weights, signs * x)


@cache
def float_case(name: str, cols: int) -> Case:
    weights = random_matrix(name, 21, cols, seed=cols)
    x, signs = random_activations(512)[512 - cols :], random_signs(11, cols)
    return weights, x, signs, emulated_float(weights.decode(), signs * x)


@pytest.mark.parametrize("name", INTEGER)
def test_integer_products_are_the_arithmetic_they_promise(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cols in (256, 768) if formats.get(name).block_weights == 256 else (32, 96, 608):
        weights, x, signs, expected = integer_case(name, cols)
        found = product(weights, x, signs, isa, monkeypatch)
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32)), cols


@pytest.mark.parametrize("name", FLOAT)
def test_float_products_are_the_arithmetic_they_promise(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cols in (512,) if formats.get(name).block_weights > 1 else (2, 37, 300):
        weights, x, signs, expected = float_case(name, cols)
        found = product(weights, x, signs, isa, monkeypatch)
        assert np.array_equal(found, expected), cols


FILLS = (0x00, 0x7F, 0x80, 0xFF)


def filled(name: str, fill: int, rows: int, cols: int) -> Tensor:
    """Every byte the same, every fp16 scale 1: all codes at one end of their range."""
    format = formats.get(name)
    blocks = np.full((rows * cols // format.block_weights, format.block_bytes), fill, np.uint8)
    for at in format.fp16_at:
        blocks[:, at : at + 2] = (0x00, 0x3C)
    return tensor(name, blocks.reshape(rows, -1))


def running_sums(weights: Tensor, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every value the sum of a row of integer weights takes: (n, steps), minimums being steps."""
    factors, scales, mins = (part[0] for part in grid(weights))
    group = len(factors) // len(scales)
    products = x * factors * scales.repeat(group).astype(np.int64)
    taken_off = -x * mins.repeat(group).astype(np.int64)
    steps = np.stack([part.reshape(len(x), -1, BLOCK).sum(2) for part in (products, taken_off)], 2)
    return steps.reshape(len(x), -1).cumsum(axis=1)


def end_activations() -> tuple[Floats, Floats]:
    """Activations (COLUMNS,) of 127, and signs (4, COLUMNS) for them."""
    signs = np.ones((4, COLUMNS), np.float32)
    signs[1] = -1
    signs[2, ::2] = -1  # pairs and quads that cancel
    signs[3] = random_signs(1, COLUMNS)
    return np.full(COLUMNS, 127, np.float32), signs


@cache
def sums_at_the_end(name: str, fill: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Of a row of that byte: the emulation's products, int64's, and which of them must be equal."""
    activations, signs = end_activations()
    row = filled(name, fill, 1, COLUMNS)
    values = row.decode().astype(np.int64)
    assert np.array_equal(values, row.decode()), "weights are not integers"
    integers = (signs * activations).astype(np.int64)
    steps = running_sums(row, integers)
    exact = (steps.astype(np.float32).astype(np.int64) == steps).all(axis=1)
    return emulated(row, signs * activations)[:, 0], integers @ values[0], exact


@pytest.mark.parametrize("name", INTEGER)
def test_sums_at_the_ends_of_every_range_are_exact(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are integers here, and so are activations of ±127: nothing may round or saturate.

    Where every running sum of blocks is an integer float32 can hold (always, at the ends of the
    ranges), the product has to equal int64's; elsewhere, the emulation's.
    """
    held = 0
    for fill in FILLS:
        expected, sums, exact = sums_at_the_end(name, fill)
        found = product(filled(name, fill, 17, COLUMNS), *end_activations(), isa, monkeypatch)
        held += int(exact.sum())
        assert np.array_equal(found[exact], np.repeat(sums[exact, None], 17, axis=1)), hex(fill)
        assert np.array_equal(found, np.repeat(expected[:, None], 17, axis=1)), hex(fill)
    assert held >= 8


def test_q8_0_reaches_minus_128(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No encoder writes −128, but a file may hold it: −128 · ±127, pairwise, over 8960 columns."""
    weights = filled("q8_0", 0x80, 16, COLUMNS)
    assert (weights.decode() == -128).all()
    signs = np.stack([np.ones(COLUMNS), -np.ones(COLUMNS)]).astype(np.float32)
    found = product(weights, np.full(COLUMNS, 127, np.float32), signs, isa, monkeypatch)
    assert np.array_equal(found[:, 0], [-128 * 127 * COLUMNS, 128 * 127 * COLUMNS])


@pytest.mark.parametrize("name", INTEGER)
def test_the_error_is_that_of_rounding_the_activations(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """|Δ| ≤ Σ_blocks (scale / 2) · Σ|w|, and what float32 loses over the blocks."""
    weights = random_matrix(name, 16, 1024)
    x = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    signs = random_signs(5, 1024)
    found = product(weights, x, signs, isa, monkeypatch)
    w = weights.decode().astype(np.float64)
    scales = rounded(x[None])[1].repeat(BLOCK, axis=1)[0].astype(np.float64)
    magnitude = np.abs(w) @ np.abs(x)
    if name not in OFFSETS:  # d · q and the minimum are larger than their difference
        magnitude = magnitude + 4 * np.abs(w).max(axis=1) * np.abs(x).sum()
    bound = np.abs(w) @ (scales / 2 * 1.0001) + magnitude * 2**-24 * (1024 / BLOCK) * 4
    assert (np.abs(found - (signs * x) @ w.T) <= bound).all()


@pytest.mark.parametrize("name", ["q8_0", "q4_1", "q6_k", "q2_k", "f16"])
def test_zero_activations_give_zero(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_matrix(name, 16, 256)
    found = product(weights, np.zeros(256, np.float32), random_signs(3, 256), isa, monkeypatch)
    assert (found == 0).all()


@pytest.mark.parametrize("name", ["q8_0", "q4_k", "q6_k", "f32"])
@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-38, 1.4e-36, 1.6e-36, 1e-30])
def test_tiny_activations_stay_tiny(
    name: str, size: float, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127 / largest overflows below 3.7e-37; such a block may count as zero, never as anything
    larger than it is, and alike on every instruction set."""
    weights = random_matrix(name, 16, 256)
    x = np.random.default_rng(0).uniform(-1, 1, 256) * size
    x[::7] = 0
    x, signs = x.astype(np.float32), random_signs(3, 256)
    found = product(weights, x, signs, isa, monkeypatch)
    w = weights.decode().astype(np.float64)
    exact = (signs * x).astype(np.float64) @ w.T
    largest = np.abs(x).reshape(-1, BLOCK).max(axis=1).repeat(BLOCK).astype(np.float64)
    lost = np.where(largest / 127 >= TINY, largest / 254 * 1.001, largest)  # at most, of each
    bound = np.abs(w) @ lost + 256 * TINY
    assert (np.abs(found - exact) <= bound).all()
    assert np.array_equal(found, product(weights, x, signs, "scalar", monkeypatch))


@pytest.mark.parametrize("name", ["q8_0", "q4_k", "q6_k", "f32"])
def test_huge_activations_are_no_infinity(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value near the largest float per block; the product is below it."""
    weights = random_matrix(name, 16, 256)
    x = np.ones(256, np.float32)
    x[7] = 3e38 / 1024
    x[40] = -3e38 / 1024
    signs = random_signs(3, 256)
    found = product(weights, x, signs, isa, monkeypatch)
    assert np.isfinite(found).all()
    exact = (signs * x).astype(np.float64) @ weights.decode().astype(np.float64).T
    bound = np.abs(weights.decode()).sum(axis=1) * (x.max() / 254.0) * 1.01 + 1
    assert (np.abs(found - exact) <= bound).all()


@pytest.mark.parametrize("name", ["q4_k", "iq3_s"])
def test_products_of_any_batch_and_thread_count_are_the_same_bits(
    name: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = random_matrix(name, 150, 512)
    x, signs = random_activations(512), random_signs(19, 512)
    whole = product(weights, x, signs, isa, monkeypatch)
    for threads in (2, 3):
        assert np.array_equal(whole, product(weights, x, signs, isa, monkeypatch, threads))
    for size in range(1, 10):
        part = product(weights, x, signs[3 : 3 + size], isa, monkeypatch)
        assert np.array_equal(whole[3 : 3 + size], part), size
    assert product(weights, x, signs[:0], isa, monkeypatch).shape == (0, 150)
