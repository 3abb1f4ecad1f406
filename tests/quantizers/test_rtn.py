"""Importance-weighted rounding: as good as a search of everything, the same bytes everywhere."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trit import _core, formats
from trit.errors import UnsupportedError, UsageError
from trit.quantizers import rtn
from trit.quantizers._grids import FLOATS, WRITTEN

Floats = NDArray[np.float32]

GRIDS = sorted(WRITTEN - FLOATS)
FLAT = ("q4_0", "q5_0", "q8_0", "iq4_nl", "tq2_0")  # one scale per block and nothing else
AFFINE = ("q4_1", "q5_1")


def sample(rows: int, cols: int, seed: int = 0, tails: float = 4.0) -> tuple[Floats, Floats]:
    """Heavy-tailed weights (rows, cols) and an uneven importance (cols,)."""
    rng = np.random.default_rng(seed)
    weights = (rng.standard_t(tails, (rows, cols)) * 0.02).astype(np.float32)
    return weights, np.exp(1.5 * rng.standard_normal(cols)).astype(np.float32)


def error(
    weights: Floats, packed: NDArray[np.uint8], name: str, importance: Floats | None
) -> float:
    """Weighted sum of squared errors, in float64."""
    off = weights.astype(np.float64) - formats.get(name).decode(packed)
    return float((off * off * (1.0 if importance is None else importance)).sum())


def levels(name: str) -> NDArray[np.float64]:
    """The grid points of a format with one scale."""
    ranges = {"q4_0": (-8, 7), "q5_0": (-16, 15), "q8_0": (-127, 127), "tq2_0": (-1, 1)}
    if name in ranges:
        return np.arange(ranges[name][0], ranges[name][1] + 1, dtype=np.float64)
    return np.asarray(formats.get(name).levels, dtype=np.float64)


def least_error(x: NDArray[np.float64], w: NDArray[np.float64], name: str) -> float:
    """The least error of one block over every fp16 scale that could matter."""
    grid = levels(name)
    middles = (grid[1:] + grid[:-1]) / 2
    top = np.abs(x).max() / np.abs(grid).max()
    scales = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    scales = scales[(scales > (0.15 if name == "tq2_0" else 0.6) * top) & (scales < 3 * top)]
    best = np.inf
    for sign in (1, -1):
        for part in np.array_split(sign * scales, max(1, len(scales) // 512)):
            values = grid[np.searchsorted(middles, x / part[:, None])] * part[:, None]
            best = min(best, float((w * (x - values) ** 2).sum(axis=1).min()))
    return best


def test_written_formats_are_what_the_core_writes() -> None:
    for name, format in formats.all().items():
        weights = np.zeros((1, format.block_weights), dtype=np.float32)
        if name in WRITTEN:
            assert rtn.quantize(weights, name).shape == (1, format.block_bytes)
        else:
            with pytest.raises(Exception, match="cannot be written"):
                _core.quantize(name, weights, None, 1, "scalar")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_equal_bytes_on_every_isa_and_thread_count(
    isas: list[str], name: str, weighted: bool
) -> None:
    weights, importance = sample(37, 768)
    data = importance if weighted else None
    first = rtn.quantize(weights, name, data, threads=1, isa=isas[-1])  # the plainest
    for isa in isas:  # rows are shared out alike on each
        for threads in (1, 2, 3) if isa == isas[0] else (3,):
            assert np.array_equal(first, rtn.quantize(weights, name, data, threads, isa)), isa
    alone = np.concatenate([rtn.quantize(row[None], name, data) for row in weights[:5]])
    assert np.array_equal(first[:5], alone)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FLAT)
@pytest.mark.unsanitized
def test_near_the_best_of_all_scales(name: str, weighted: bool) -> None:
    block = formats.get(name).block_weights
    weights, importance = sample(1, max(4 * block, 64 * 32), seed=3)
    data = importance if weighted else np.ones_like(importance)
    x, w = (a.astype(np.float64).reshape(-1, block) for a in (weights[0], data))
    best = sum(least_error(*pair, name) for pair in zip(x, w, strict=True))
    got = error(weights, rtn.quantize(weights, name, data if weighted else None), name, data)
    # What the samples may miss: more where the error hangs on luck in 32 roundings (255 steps), or
    # in the few of them that an uneven importance leaves.
    allowed = (0.10 if name == "q8_0" else 0.02) * (3 if weighted else 1)
    assert best * (1 - 1e-6) < got < best * (1 + allowed)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.unsanitized
def test_offsets_near_the_best_of_a_dense_search(name: str) -> None:
    top = 2 ** int(name[1]) - 1
    weights, importance = sample(1, 16 * 32, seed=4)
    got = error(weights, rtn.quantize(weights, name, importance), name, importance)
    best = 0.0
    for x, w in zip(weights.reshape(-1, 32), importance.reshape(-1, 32), strict=True):
        ends = np.linspace(-0.08, 0.4, 60) * (x.max() - x.min())
        m = (x.min() + ends)[:, None, None]
        d = ((x.max() - ends)[None, :, None] - m) / top
        d[d <= 0] = np.inf
        with np.errstate(invalid="ignore"):
            values = np.clip(np.round((x - m) / d), 0, top) * d + m
        best += float(np.nanmin((w * (x - values) ** 2).sum(axis=2)))
    assert got < best * 1.05  # the samples are fewer, but refitted


@pytest.mark.parametrize("name", GRIDS)
def test_importance_moves_the_error(name: str) -> None:
    weights, importance = sample(16, 1024, seed=5)
    plain = error(weights, rtn.quantize(weights, name), name, importance)
    assert error(weights, rtn.quantize(weights, name, importance), name, importance) < plain


@pytest.mark.parametrize("name", GRIDS)
def test_importance_in_any_unit(name: str) -> None:
    weights, importance = sample(4, 512, seed=6)
    expected = rtn.quantize(weights, name, importance)
    for unit in (2.0**-60, 2.0**60):
        scaled = (importance * unit).astype(np.float32)
        assert np.array_equal(expected, rtn.quantize(weights, name, scaled))


@pytest.mark.parametrize("name", GRIDS)
def test_columns_without_importance_count_alike(name: str) -> None:
    weights, importance = sample(4, 512, seed=7)
    even = rtn.quantize(weights, name, np.ones_like(importance))
    assert np.array_equal(even, rtn.quantize(weights, name, np.zeros_like(importance)))
    importance[:256] = 0
    half = rtn.quantize(weights, name, importance)
    middle = even.shape[1] // 2
    assert np.array_equal(half[:, :middle], even[:, :middle])


@pytest.mark.parametrize("name", GRIDS)
def test_zeros_stay_zeros(name: str) -> None:
    packed = rtn.quantize(np.zeros((3, 512), dtype=np.float32), name)
    assert not formats.get(name).decode(packed).any()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-8, 6e-8, 1e-6, 1.0, 7e4, 1e30, 3e38])
def test_any_magnitude_gives_finite_scales(name: str, size: float, isas: list[str]) -> None:
    pattern = np.sin(np.arange(512, dtype=np.float64)) * size
    weights = pattern.astype(np.float32)[None]
    packed = rtn.quantize(weights, name)
    for isa in isas:
        assert np.array_equal(packed, rtn.quantize(weights, name, isa=isa))
    assert formats.get(name).nonfinite(packed) == 0
    decoded = formats.get(name).decode(packed)
    assert np.isfinite(decoded).all()
    assert error(weights, packed, name, None) <= float((weights.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("value", [1.0, -1.0, 0.37, -123.0, 6e4, -6e4])
def test_constant_rows(name: str, value: float) -> None:
    weights = np.full((2, 512), value, dtype=np.float32)
    decoded = formats.get(name).decode(rtn.quantize(weights, name))
    # One fp16 rounding of the scale, and for K-quants one more of the minimum; a power of two is at
    # worst as far off as the middle of two levels.
    assert np.abs(decoded / value - 1).max() < (0.2 if name == "mxfp4" else 2.0**-10)


@pytest.mark.parametrize("name", GRIDS)
def test_infinities_and_nan_end(name: str, isas: list[str]) -> None:
    weights, _ = sample(2, 512)
    weights[0, 3], weights[0, 300], weights[1, 5] = np.inf, -np.inf, np.nan
    first = rtn.quantize(weights, name)
    assert first.shape == (2, formats.get(name).row_bytes(512))
    clean = rtn.quantize(weights[1:, 256:], name)
    assert np.array_equal(clean, first[1:, -clean.shape[1] :])  # other blocks do not notice
    for isa in isas:
        assert np.array_equal(clean, rtn.quantize(weights[1:, 256:], name, isa=isa))


@pytest.mark.parametrize("name", GRIDS)
def test_what_lies_on_the_grid_stays(name: str) -> None:
    weights, _ = sample(8, 1024, seed=8)
    once = formats.get(name).decode(rtn.quantize(weights, name))
    again = rtn.quantize(once, name)
    first = float(((weights.astype(np.float64) - once) ** 2).sum())
    # Blocks with integer scales may settle on a neighbouring grid; never far from the old one.
    assert error(once, again, name, None) <= first * (0.0 if name in FLAT else 0.1)


def test_ternary_weights_are_exact() -> None:
    rng = np.random.default_rng(9)
    codes = rng.integers(-1, 2, (4, 1024)).astype(np.float32)
    weights = (codes * np.float32(0.013671875)).astype(np.float32)  # an fp16 number
    for name in ("tq1_0", "tq2_0"):
        assert np.array_equal(formats.get(name).decode(rtn.quantize(weights, name)), weights)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_plain_floats(name: str) -> None:
    weights, _ = sample(3, 70)
    weights[0, :4] = [65519.0, 1e-7, -0.0, 3e38]
    encode = formats.get(name).encode
    assert encode is not None
    expected = encode(weights).reshape(3, -1)
    assert np.array_equal(rtn.quantize(weights, name), expected)


def test_rows_of_no_length_and_views() -> None:
    weights, importance = sample(8, 512)
    assert rtn.quantize(weights[:0], "q4_k").shape == (0, 288)
    every_other = rtn.quantize(weights[::2], "q4_k", importance[::1])
    assert np.array_equal(every_other, rtn.quantize(weights, "q4_k", importance)[::2])


def test_refusals() -> None:
    weights, importance = sample(2, 320)
    with pytest.raises(UnsupportedError, match="320 columns"):
        rtn.quantize(weights, "q4_k")
    with pytest.raises(UnsupportedError, match="not written"):
        rtn.quantize(weights[:, :256], "nvfp4")
    with pytest.raises(UsageError, match="need"):
        rtn.quantize(weights, "q4_0", importance[:-1])
    for bad in (-1.0, np.nan, np.inf):
        importance[7] = bad
        with pytest.raises(UsageError, match="column 7"):
            rtn.quantize(weights, "q4_0", importance)
