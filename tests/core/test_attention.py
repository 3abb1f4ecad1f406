"""Attention over long contexts: the same bits however rows are grouped and spans are shared out, in
every element type of the cache, and close to the float reference."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, Tensors, small_plan

from trit.engine import CACHE_TYPES, Engine, Rows
from trit.errors import UsageError
from trit.plan import Plan

Floats = NDArray[np.float32]

VOCAB = 40
TOKENS = 530  # nine pages, three spans
SCALAR_TOKENS = 290  # two spans


def parts(heads: int, kv_heads: int, head_dim: int, window: int | None, extras: bool) -> Parts:
    return Parts(
        ("f32",), width=64, inner=64, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        vocab=VOCAB, window=window, extras=extras,
    )  # fmt: skip


# Every number of query heads per key head from one to eight and one above, dimensions that fill no
# block of 32, windows below a page, above one and above a span; extras: sinks and soft caps.
SHAPES = {
    "1": parts(3, 3, 16, None, False),
    "2": parts(2, 1, 24, 40, True),
    "3": parts(6, 2, 48, 70, True),
    "4": parts(4, 1, 128, 300, False),
    "5": parts(5, 1, 32, None, True),
    "6": parts(12, 2, 40, 64, False),
    "7": parts(7, 1, 64, 500, True),
    "8": parts(16, 2, 80, 1, False),
    "17": parts(17, 1, 32, 130, True),
}


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def all_logits(engine: Engine, tokens: list[int], start: int = 0, sequence: int = 0) -> Floats:
    return engine.forward(Rows.of(tokens, start, sequence), range(len(tokens)))


def same(found: Floats, expected: Floats) -> bool:
    assert np.isfinite(found).all()
    return found.tobytes() == expected.tobytes()


Made = tuple[Plan, Tensors, Floats]


@pytest.fixture(scope="module", params=[(s, c) for s in SHAPES for c in CACHE_TYPES], ids=str)
def made(request: pytest.FixtureRequest, isas: list[str]) -> tuple[str, Made]:
    """A model and its logits from one pass, on one thread, of the best instruction set."""
    shape, cache_type = request.param
    plan, tensors = small_plan(SHAPES[shape])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIT_ISA", isas[0])
        one = Engine(plan, tensors, 1, TOKENS, batch=TOKENS, cache_type=cache_type)
        expected = all_logits(one, tokens_of(TOKENS))
    assert expected.std() > 0.1
    return cache_type, (plan, tensors, expected)


def test_grouping_and_threads_change_nothing(
    made: tuple[str, Made], isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIT_ISA", isa)
    cache_type, (plan, tensors, expected) = made
    count = SCALAR_TOKENS if isa == "scalar" else TOKENS
    tokens = tokens_of(count)
    one = Engine(plan, tensors, 3, TOKENS, batch=100, cache_type=cache_type)
    # A prompt, then a few rows at a time, then rows one by one at depth.
    cuts = [0, count - 60, count - 53, count - 21, *range(count - 20, count + 1)]
    found = [all_logits(one, tokens[a:b], a) for a, b in pairwise(cuts)]
    assert same(np.concatenate(found), expected[:count])
    # The end of it once more among the rows of another sequence, in turns.
    one.remove(0, count - 50)
    other = tokens_of(50, seed=1)
    rows = Rows(
        np.array([t for pair in zip(tokens[-50:], other, strict=True) for t in pair], np.int32),
        np.tile(np.array([0, 5], np.int32), 50),
        np.array([p for i in range(50) for p in (count - 50 + i, i)], np.int64),
    )
    assert same(one.forward(rows, range(0, 100, 2)), expected[count - 50 : count])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.unsanitized
def test_near_the_reference(shape: str) -> None:
    """With an f32 cache only the order of sums differs: 1e-5 of the largest logit."""
    torch = pytest.importorskip("torch", reason="the reference needs torch (dev extra)")
    from trit.reference import Reference

    plan, tensors = small_plan(SHAPES[shape])
    tokens = tokens_of(TOKENS)
    with torch.no_grad():
        expected = Reference(plan, tensors).forward(tokens).numpy()
    errors = {}
    for cache_type in CACHE_TYPES:
        one = Engine(plan, tensors, 2, TOKENS, cache_type=cache_type)
        errors[cache_type] = np.abs(all_logits(one, tokens) - expected).max()
    largest = np.abs(expected).max()
    assert errors["f32"] <= 1e-5 * largest
    # Rounding to a half moves a value by up to 2^-12 of it; to int8 with one scale for 32, by up to
    # 1/254 of the largest. Both are smoothed by all that is summed; the logits of these models
    # move by no more than the roundings themselves.
    assert errors["f16"] <= 2**-12 * 4 * largest
    assert errors["q8_0"] <= 1 / 254 * 8 * largest


def test_values_too_large_for_a_half_stay_finite() -> None:
    """A later row's value must not reach an earlier one, which multiplies it with 0."""
    plan, tensors = small_plan(parts(2, 1, 32, None, False))
    bias = plan.layers[0].mixer_norm
    assert bias is not None
    scale = tensors[bias.weight]
    huge = scale.decode().astype(np.float32) * 3e6
    tensors[bias.weight] = type(scale)(
        scale.name, scale.shape, scale.format, np.ascontiguousarray(huge).view(np.uint8)
    )
    tokens = tokens_of(80)
    for cache_type in CACHE_TYPES:
        whole = all_logits(Engine(plan, tensors, 2, 128, cache_type=cache_type), tokens)
        steps = Engine(plan, tensors, 2, 128, batch=1, cache_type=cache_type)
        assert np.isfinite(whole).all()
        assert same(all_logits(steps, tokens), whole)


def test_cache_types_and_their_bytes() -> None:
    plan, tensors = small_plan(SHAPES["1"])
    values = 2 * 2 * 3 * 32 * 64  # keys and values, layers, heads, padded dimensions, positions
    for cache_type, bits in (("f32", 32), ("f16", 16), ("q8_0", 8.5)):
        one = Engine(plan, tensors, 1, 128, cache_type=cache_type)
        one.forward(Rows.of(tokens_of(65)))
        assert one.cache_bytes() == 2 * values * bits / 8
    with pytest.raises(UsageError, match="--cache-type q4_0: expected f32, f16, q8_0"):
        Engine(plan, tensors, 1, 128, cache_type="q4_0")


def test_q8_0_on_a_real_model(zoo_model: Callable[[str], Path]) -> None:
    """Any change of this model's arithmetic, that of an f32 cache to f16 for one, moves its answers
    by a KLD of 3e-3 (docs/log.md), because activations are rounded to int8. q8_0 adds little."""
    from trit import archs
    from trit.files import checkpoint
    from trit.runtime.tokenizer import Tokenizer

    path = zoo_model("smollm2-135m-instruct")
    text = (Path(__file__).parents[1] / "text" / "essay.txt").read_text()
    tokens = Tokenizer.from_gguf(path).encode(text)[:300]
    with checkpoint.open(path) as file:
        plan = archs.plan(file)
        f32, *others = (
            all_logits(Engine(plan, file.tensors, 2, 320, cache_type=name), tokens)
            for name in CACHE_TYPES
        )
    f16, q8_0 = (kld(f32, other) for other in others)
    assert 0 < q8_0 < 2 * f16


def kld(expected: Floats, found: Floats) -> float:
    """Mean over positions, in nats."""
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (expected, found))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())
