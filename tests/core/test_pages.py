"""Pages copied out of the cache and into another: the same bits, and nothing that no sequence can
hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, Tensors, small_plan

from trit.engine import PAGE, CacheFullError, Engine, Rows
from trit.errors import DoesNotFitError, UsageError
from trit.plan import Plan

VOCAB, WINDOW, BATCH, CONTEXT = 50, 70, 48, 512
MIXED: tuple[Plan, Tensors] = small_plan(
    Parts(
        ("q8_0",),
        width=64,
        inner=64,
        heads=2,
        kv_heads=1,
        head_dim=32,
        vocab=VOCAB,
        window=WINDOW,
        context=CONTEXT,
    )
)  # a layer with a window, one without


def engine(cache_type: str = "f16", cache_positions: int | None = None) -> Engine:
    return Engine(*MIXED, 2, CONTEXT, BATCH, cache_positions=cache_positions, cache_type=cache_type)


def text(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def run(one: Engine, tokens: list[int], start: int, sequence: int = 0) -> NDArray[np.float32]:
    """Logits of the tokens from `start` on, in passes of a batch."""
    found = []
    for at in range(start, len(tokens), BATCH):
        rows = Rows.of(tokens[at : at + BATCH], at, sequence)
        found.append(one.forward(rows, range(len(rows.tokens))))
    return np.concatenate(found)


@pytest.mark.parametrize("cache_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("length", [1, PAGE, PAGE + 1, 200, 401])
def test_another_engine_goes_on_as_if_it_had_read_all(length: int, cache_type: str) -> None:
    first, second = engine(cache_type), engine(cache_type)
    tokens = text(length + 60)
    run(first, tokens[:length], 0)
    begins = first.first_pages(0)
    assert (max(begins) > 0) == (length > WINDOW + BATCH + PAGE)
    second.restore(7, length, begins, first.read_pages(0))
    assert (second.length(7), second.first_pages(7)) == (length, begins)
    assert second.keeps_from(7) == first.keeps_from(0)
    assert np.array_equal(run(second, tokens, length, 7), run(first, tokens, length))


def test_pages_are_zeroed_before_they_are_used_again() -> None:
    """Nothing of a sequence that was removed is in the pages of another."""
    one, other = engine(), engine()
    run(one, text(CONTEXT - 1), 0)
    one.remove(0)
    for each in (one, other):
        run(each, text(5, 1), 0, 1)
    pairs = zip(one.read_pages(1), other.read_pages(1), strict=True)
    assert all(np.array_equal(left, right) for left, right in pairs)


def test_no_room() -> None:
    first, second = engine(), engine(cache_positions=PAGE)
    run(first, text(2 * PAGE), 0)
    with pytest.raises(CacheFullError):
        second.restore(0, 2 * PAGE, first.first_pages(0), first.read_pages(0))
    assert second.length(0) == second.cache_pages() == 0
    second.restore(0, PAGE, (0, 0), first.read_pages(0))  # a page of each group, in their order


def test_pages_that_are_missing_or_of_another_size() -> None:
    one = engine()
    sizes = one.page_bytes()
    for pages in ([], [np.zeros(1, np.uint8)], [np.zeros(sizes[0], np.uint8)]):
        with pytest.raises(UsageError, match="other bytes"):
            one.restore(0, PAGE, (0, 0), iter(pages))
        assert one.length(0) == one.cache_pages() == 0


def test_what_no_sequence_can_hold() -> None:
    one, nothing = engine(), iter(())
    for length, first in (
        (64, (0,)), (64, (0, 0, 0)), (64, (-1, 0)), (64, (0, -1)),
        (500, (1, 1)), (100, (0, 1)), (100, (1, 0)), (100, (1 << 40, 1 << 40)),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            one.restore(0, length, first, nothing)
    for length in (-1, 0, CONTEXT + 1):
        with pytest.raises(DoesNotFitError):
            one.restore(0, length, (0, 0), nothing)
    assert one.length(0) == one.cache_pages() == 0


def test_one_page_at_a_time() -> None:
    one = engine()
    run(one, text(PAGE + 1), 0)
    decoder = one._decoder
    room = [np.zeros(size, np.uint8) for size in one.page_bytes()]
    refused: list[Callable[[], object]] = [
        lambda: decoder.copy_page(9, 0, 0, room[0], False),
        lambda: decoder.copy_page(0, 2, 0, room[0], False),
        lambda: decoder.copy_page(0, -1, 0, room[0], False),
        lambda: decoder.copy_page(0, 0, 2, room[0], False),
        lambda: decoder.copy_page(0, 0, -1, room[0], False),
        lambda: decoder.copy_page(0, 0, 0, room[0][1:].copy(), False),
        lambda: decoder.copy_page(0, 0, 0, np.zeros(0, np.uint8), True),
    ]
    for attempt in refused:
        with pytest.raises((ValueError, IndexError)):
            attempt()
    with pytest.raises(UsageError):
        one.restore(0, PAGE, (0, 0), iter(()))  # it holds something
    one.fork(0, 1, PAGE + 1)
    with pytest.raises(ValueError, match="share"):
        decoder.copy_page(0, 0, 0, room[0], True)
