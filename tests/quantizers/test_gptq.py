"""Error feedback: what a slow column-by-column reference gives, the same bytes everywhere."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trit import _core, formats
from trit.errors import TritError, UnsupportedError, UsageError
from trit.files.quantized import Grid
from trit.quantizers import gptq, rtn

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

GRIDS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")
SUPER = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")
CODEBOOKS = ("iq2_xxs", "iq3_s", "iq1_m", "mxfp4")
MANY = 1 << 20  # tokens: the least damping


def sample(rows: int, cols: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Heavy-tailed weights (rows, cols), and the Gram matrix of inputs that go together."""
    rng = np.random.default_rng(seed)
    weights = (rng.standard_t(5, (rows, cols)) * 0.02).astype(np.float32)
    hidden = rng.standard_normal((4 * cols, cols // 4))
    inputs = hidden @ rng.standard_normal((cols // 4, cols)) + rng.standard_normal((4 * cols, cols))
    inputs *= np.exp(rng.standard_normal(cols))
    return weights, (inputs.T @ inputs).astype(np.float32)


def damped(gram: Floats) -> Doubles:
    diagonal = gram.diagonal().astype(np.float64)
    return gram + np.diag(gptq.DAMPING * diagonal + gptq.FLOOR * diagonal.mean())


def hessian(gram: Floats, name: str) -> gptq.Hessian:
    return gptq.hessian(gram, MANY, formats.get(name).block_weights)


def losses(weights: Floats, packed: NDArray[np.uint8], name: str, h: Doubles) -> Doubles:
    """(w − v)·H·(w − v)ᵀ of each row."""
    off = weights.astype(np.float64) - formats.get(name).decode(packed)
    result: Doubles = np.einsum("ri,ij,rj->r", off, h, off)
    return result


def reference(weights: Floats, packed: NDArray[np.uint8], name: str, h: Doubles) -> Doubles:
    """Values for the scales of `packed`: column by column, through the inverse of H."""
    format = formats.get(name)
    assert format.unpack is not None
    unpacked = format.unpack(packed.reshape(-1, format.block_bytes))
    rows, cols = weights.shape

    def by_column(per_group: NDArray[np.number]) -> Doubles:
        groups = per_group.astype(np.float64).reshape(len(unpacked.d), -1)
        return np.repeat(groups, format.block_weights // groups.shape[1], axis=1).reshape(rows, -1)

    scale = by_column(unpacked.d)
    if unpacked.scales is not None:
        scale = scale * by_column(unpacked.scales) * format.unit
    offset = np.zeros((rows, cols)) if unpacked.m is None else by_column(unpacked.m)
    if unpacked.mins is not None:
        offset = -offset * by_column(unpacked.mins)
    points = format.levels or POINTS[name]
    grid = np.array(sorted(points), dtype=np.float64)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left, values = weights.astype(np.float64), np.empty((rows, cols))
    for j in range(cols):
        choices = scale[:, j, None] * grid + offset[:, j, None]
        nearest = np.abs(choices - left[:, j, None]).argmin(axis=1)
        values[:, j] = choices[np.arange(rows), nearest]
        error = (left[:, j] - values[:, j]) / upper[j, j]
        left[:, j:] -= error[:, None] * upper[j, j:]
    return values


POINTS = {
    "q4_0": range(-8, 8), "q4_1": range(16), "q5_0": range(-16, 16), "q5_1": range(32),
    "q8_0": range(-127, 128), "q2_k": range(4), "q3_k": range(-4, 4), "q4_k": range(16),
    "q5_k": range(32), "q6_k": range(-32, 32),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS + SUPER)
@pytest.mark.unsanitized
def test_codes_are_those_of_the_reference(name: str) -> None:
    weights, gram = sample(37, 512, seed=1)
    packed = gptq.quantize(weights, name, gram)
    expected = reference(weights, packed, name, damped(gram))
    found = formats.get(name).decode(packed).astype(np.float64)
    # A weight near the middle between two levels goes either way, and what follows with it.
    same = np.isclose(found, expected, rtol=1e-3, atol=1e-6)
    assert same.mean() > 0.97
    h, off = damped(gram), weights - expected
    slow = np.einsum("ri,ij,rj->r", off, h, off).sum()
    assert losses(weights, packed, name, h).sum() == pytest.approx(slow, rel=0.01)


@pytest.mark.parametrize("name", GRIDS + SUPER + CODEBOOKS)
def test_losses_are_those_of_the_rows(name: str) -> None:
    weights, gram = sample(40, 512, seed=2)
    factor = gptq.factorize(gram)
    packed, found = gptq.feed_back(weights, name, factor)
    expected = losses(weights, packed, name, damped(gram))
    assert np.allclose(found, expected, rtol=1e-3)
    assert np.allclose(gptq.judge(weights, name, factor, packed), expected, rtol=1e-3)


@pytest.mark.parametrize("name", GRIDS + SUPER + CODEBOOKS)
@pytest.mark.unsanitized
def test_feedback_loses_less_than_rounding(name: str) -> None:
    weights, gram = sample(48, 768, seed=3)
    importance = np.ascontiguousarray(gram.diagonal())
    plain = rtn.quantize(weights, name, importance)
    choice = gptq.choose(weights, name, hessian(gram, name), plain)
    assert choice.fed_back
    h = damped(gram)
    least = 0.95 if name in CODEBOOKS else 0.6
    assert (
        losses(weights, choice.data, name, h).sum() < least * losses(weights, plain, name, h).sum()
    )
    assert choice.loss < choice.plain_loss


@pytest.mark.parametrize(("name", "block"), (("q4_0", 32), ("q3_k", 256)))
def test_columns_of_much_energy_come_first(name: str, block: int) -> None:
    weights, gram = sample(48, 768, seed=10)
    factor = gptq.factorize(gram, block=block)
    energy = gram.diagonal()[factor.order]
    blocks = energy.reshape(-1, block)
    assert (np.diff(blocks, axis=1) <= 0).all() and (np.diff(blocks[:, 0]) <= 0).all()
    packed, found = gptq.feed_back(weights, name, factor)
    assert np.allclose(found, losses(weights, packed, name, damped(gram)), rtol=1e-3)
    as_they_stand = gptq.feed_back(weights, name, gptq.factorize(gram))[1]
    assert found.sum() < as_they_stand.sum()


def test_few_tokens_are_damped_more() -> None:
    assert gptq.damping(512, 1 << 20) == gptq.DAMPING
    assert gptq.damping(512, 2048) == 1.0
    assert gptq.damping(8192, 3) == gptq.MOST_DAMPING
    _, gram = sample(1, 256)
    assert [each.damping for each in gptq.hessian(gram, 4096, 32).factors] == [0.5, 1.5]
    assert [each.damping for each in gptq.hessian(gram, 64, 32).factors] == [4.0]


def test_the_best_damping_is_chosen() -> None:
    """Judged by the first; with few rows all are tried on all."""
    weights, gram = sample(40, 512, seed=11)
    given = hessian(gram, "q2_k")
    plain = rtn.quantize(weights, "q2_k", np.ascontiguousarray(gram.diagonal()))
    choice = gptq.choose(weights, "q2_k", given, plain)
    made = [gptq.feed_back(weights, "q2_k", each)[0] for each in given.factors]
    lost = [float(gptq.judge(weights, "q2_k", given.factors[0], each).sum()) for each in made]
    assert len(set(lost)) == 3
    expected = gptq.descend(weights, "q2_k", given, made[int(np.argmin(lost))])
    assert np.array_equal(choice.data, expected)
    assert choice.loss == pytest.approx(losses(weights, expected, "q2_k", damped(gram)).sum())


@pytest.mark.parametrize("name", GRIDS + SUPER)
def test_descent_makes_no_row_worse(name: str) -> None:
    weights, gram = sample(40, 512, seed=12)
    given, h = hessian(gram, name), damped(gram)
    fed, _ = gptq.feed_back(weights, name, given.factors[0])
    before = losses(weights, fed, name, h)
    after = losses(weights, gptq.descend(weights, name, given, fed), name, h)
    assert (after <= before * 1.0001).all() and after.sum() < 0.95 * before.sum()


def test_descent_leaves_blocks_that_are_rounded_whole() -> None:
    weights, gram = sample(8, 256, seed=13)
    packed = rtn.quantize(weights, "iq3_s")
    assert gptq.descend(weights, "iq3_s", hessian(gram, "iq3_s"), packed) is packed


@pytest.mark.parametrize("name", ("q4_1", "q2_k", "q3_k", "q4_k", "iq4_xs"))
@pytest.mark.unsanitized
def test_descent_rests_where_no_single_step_helps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a code one up or down, nor an integer scale or minimum, all others the same."""
    monkeypatch.setattr(gptq, "SWEEPS", 60)
    weights, gram = sample(3, 512, seed=14)
    h, format = damped(gram), formats.get(name)
    given = hessian(gram, name)
    packed = gptq.descend(
        weights, name, given, rtn.quantize(weights, name, np.ascontiguousarray(gram.diagonal()))
    )
    assert format.unpack is not None and format.pack is not None
    least = losses(weights, packed, name, h)
    unpacked = format.unpack(packed.reshape(-1, format.block_bytes))
    extremes = format.unpack(
        np.repeat(np.array([[0x00], [0x7F], [0x80], [0xFF]], np.uint8), format.block_bytes, axis=1)
    )
    for which in ("codes", "scales", "mins"):
        field, legal = getattr(unpacked, which), getattr(extremes, which)
        if field is None:
            continue
        for at in np.random.default_rng(15).permutation(field.size)[:150]:
            index = np.unravel_index(at, field.shape)
            old = int(field[index])
            for value in (old - 1, old + 1):
                if legal.min() <= value <= legal.max():
                    field[index] = value
                    moved = format.pack(unpacked).reshape(packed.shape)
                    lost = losses(weights, moved, name, h)
                    assert (lost >= least * (1 - 1e-5)).all(), (which, index, value)
            field[index] = old


def test_what_is_no_better_is_not_kept() -> None:
    """Weights on the grid have nothing to gain."""
    weights, gram = sample(16, 256, seed=4)
    plain = rtn.quantize(weights, "q4_0")
    exact = formats.get("q4_0").decode(plain)
    choice = gptq.choose(exact, "q4_0", hessian(gram, "q4_0"), plain)
    assert not choice.fed_back and choice.data is plain and choice.plain_loss == 0


@pytest.mark.parametrize("name", ("q4_0", "q3_k", "q4_k", "iq4_xs", "iq3_xxs"))
def test_same_bytes_everywhere(name: str) -> None:
    weights, gram = sample(70, 512, seed=5)
    block, plain = formats.get(name).block_weights, rtn.quantize(weights, name)
    given = gptq.hessian(gram, MANY, block, threads=1)
    expected = gptq.choose(weights, name, given, plain, threads=1).data
    assert not np.array_equal(expected, plain)
    for isa in _core.isas():
        given = gptq.hessian(gram, MANY, block, threads=3, isa=isa)
        found = gptq.choose(weights, name, given, plain, threads=3, isa=isa).data
        assert np.array_equal(found, expected), isa


def test_rows_do_not_depend_on_each_other() -> None:
    weights, gram = sample(70, 256, seed=6)
    given = hessian(gram, "q4_k")
    plain = rtn.quantize(weights, "q4_k")
    whole = gptq.descend(weights, "q4_k", given, plain)
    assert np.array_equal(gptq.descend(weights[33:41], "q4_k", given, plain[33:41]), whole[33:41])
    whole = gptq.quantize(weights, "q4_k", gram)
    assert np.array_equal(gptq.quantize(weights[33:41], "q4_k", gram), whole[33:41])


def test_factor() -> None:
    """U·D·Uᵀ is the damped matrix, of sizes that fill tiles and sizes that do not."""
    for cols in (32, 96, 320):
        _, gram = sample(1, cols, seed=cols)
        factor = gptq.factorize(gram, threads=2)
        unit = factor.panels.transpose(1, 0, 2).reshape(cols, cols).astype(np.float64)
        assert np.array_equal(unit, np.triu(unit)) and (unit.diagonal() == 1).all()
        h = damped(gram)
        made = (unit * factor.variances) @ unit.T
        assert np.abs(made - h).max() < 1e-5 * np.abs(h).max()


def test_columns_that_never_fire() -> None:
    """They are rounded as well as others, and disturb no others."""
    weights, gram = sample(8, 256, seed=7)
    gram[64:96] = 0
    gram[:, 64:96] = 0
    values = formats.get("q4_0").decode(gptq.quantize(weights, "q4_0", gram))
    step = np.abs(weights[:, 64:96]).max(axis=1, keepdims=True) / 8
    assert (np.abs(values - weights)[:, 64:96] <= step).all()
    dead = gptq.quantize(weights, "q4_0", np.zeros_like(gram))
    assert np.array_equal(dead, rtn.quantize(weights, "q4_0", np.ones(256, np.float32)))


def test_a_singular_matrix() -> None:
    """Fewer inputs than columns: damping makes it regular."""
    rng = np.random.default_rng(8)
    inputs = rng.standard_normal((5, 256)).astype(np.float32)
    weights, _ = sample(8, 256)
    packed = gptq.quantize(weights, "q4_0", inputs.T @ inputs)
    off = (weights - formats.get("q4_0").decode(packed)) @ inputs.T
    plain = (weights - formats.get("q4_0").decode(rtn.quantize(weights, "q4_0"))) @ inputs.T
    assert np.square(off).sum() < 0.05 * np.square(plain).sum()


def test_what_is_no_gram_matrix() -> None:
    weights, gram = sample(4, 256, seed=9)
    broken = gram.copy()
    broken[3, 200] = np.nan
    with pytest.raises(TritError, match=r"nan at row 3, column 200"):
        gptq.quantize(weights, "q4_0", broken)
    broken = gram.copy()
    broken[5, 5] = -1
    with pytest.raises(UsageError, match="on its diagonal at 5"):
        gptq.quantize(weights, "q4_0", broken)
    broken = np.eye(256, dtype=np.float32)
    broken[0, 1] = broken[1, 0] = 1e6
    with pytest.raises(TritError, match="not positive definite"):
        gptq.quantize(weights, "q4_0", broken)
    with pytest.raises(UsageError, match="256 columns, their inputs 128"):
        gptq.quantize(weights, "q4_0", gram[:128, :128])
    with pytest.raises(UsageError, match="square"):
        gptq.quantize(weights, "q4_0", gram[:128])
    with pytest.raises(UsageError, match="importance of column 0"):
        gptq.quantize(weights, "q4_0", gram, np.full(256, -1, np.float32))
    with pytest.raises(UnsupportedError, match="f16 is not written with error feedback"):
        gptq.quantize(weights, "f16", gram)
    with pytest.raises(UnsupportedError, match="q4_k needs a multiple of 256"):
        given = gptq.hessian(gram[:128, :128], MANY, 32)
        gptq.descend(weights[:, :128], "q4_k", given, np.zeros((4, 72), np.uint8))
    with pytest.raises(UnsupportedError, match="q4_k needs a multiple of 256"):
        gptq.quantize(weights[:, :128], "q4_k", gram[:128, :128])


def group_reference(weights: Floats, grid: Grid, h: Doubles) -> Doubles:
    """Values on the scales and zeros of `grid`: column by column, through the inverse of H."""
    top = 7
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left, values = weights.astype(np.float64), np.empty(weights.shape)
    for j in range(weights.shape[1]):
        scale, zero = grid.scales[:, j // grid.group], grid.zeros[:, j // grid.group]
        codes = np.clip(np.rint(left[:, j] / scale) + zero, 0, top)
        values[:, j] = (codes - zero) * scale
        left[:, j:] -= ((left[:, j] - values[:, j]) / upper[j, j])[:, None] * upper[j, j:]
    return values


@pytest.mark.parametrize("group", (32, 48, 128))  # inside a panel of the factor, across, several
def test_groups_are_those_of_the_reference(group: int) -> None:
    weights, gram = sample(37, 384, seed=8)
    choice = gptq.quantize_groups(weights, 3, group, gptq.factorize(gram))
    assert choice.fed_back
    h, found = damped(gram), choice.grid.weights()
    expected = group_reference(weights, choice.grid, h)
    assert np.isclose(found, expected, rtol=1e-3, atol=1e-6).mean() > 0.97
    slow = np.einsum("ri,ij,rj->", weights - found, h, weights - found)
    assert choice.loss == pytest.approx(slow, rel=1e-3)
    plain = rtn.quantize_groups(weights, 3, group, np.ascontiguousarray(gram.diagonal())).weights()
    rounded = np.einsum("ri,ij,rj->", weights - plain, h, weights - plain)
    assert choice.loss < 0.5 * rounded
    assert choice.plain_loss == pytest.approx(rounded, rel=0.2)


@pytest.mark.parametrize("bits", (2, 4, 8))
def test_groups_stay_on_their_grids(bits: int) -> None:
    weights, gram = sample(600, 64, seed=9)  # more rows than go at a time
    grid = gptq.quantize_groups(weights, bits, 32, gptq.factorize(gram)).grid
    top = 2**bits - 1
    assert grid.codes.max() <= top and grid.zeros.min() >= 0 and grid.zeros.max() <= top
    assert np.array_equal(grid.scales.astype(np.float16).astype(np.float32), grid.scales)


def test_groups_with_nothing_to_gain() -> None:
    weights, gram = sample(16, 64, seed=10)
    exact = rtn.quantize_groups(weights, 4, 32).weights()
    choice = gptq.quantize_groups(exact, 4, 32, gptq.factorize(gram))
    assert choice.loss <= choice.plain_loss < 1e-6 * float((exact**2 @ gram.diagonal()).sum())


def test_groups_of_inputs_that_never_fire() -> None:
    weights, gram = sample(16, 64, seed=11)
    gram[:, 40:] = gram[40:] = 0
    for given in (gram, np.zeros_like(gram)):
        choice = gptq.quantize_groups(weights, 4, 32, gptq.factorize(given))
        assert (choice.grid.weights() - weights)[:, 40:].std() < 0.25 * weights.std()


def test_groups_that_do_not_fit() -> None:
    weights, gram = sample(4, 64, seed=12)
    with pytest.raises(UsageError, match="groups of 48 do not divide 64"):
        gptq.quantize_groups(weights, 4, 48, gptq.factorize(gram))
    with pytest.raises(UsageError, match="weights have 32 columns, their inputs 64"):
        gptq.quantize_groups(weights[:, :32], 4, 32, gptq.factorize(gram))
