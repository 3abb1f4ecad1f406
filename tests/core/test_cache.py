"""Pages that sequences share: whoever writes copies first, what is shared counts once, and a cache
that is full says so and loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, small_plan

from trit.engine import PAGE, CacheFullError, Engine, Rows
from trit.errors import DoesNotFitError, UsageError

VOCAB = 50
PLAN, TENSORS = small_plan(
    Parts(("q8_0",), width=64, inner=64, heads=2, kv_heads=1, head_dim=32, vocab=VOCAB, window=70)
)
CONTEXT = 4 * PAGE


def engine(pages: int | None = None, threads: int = 2) -> Engine:
    positions = None if pages is None else pages * PAGE
    return Engine(PLAN, TENSORS, threads, CONTEXT, batch=48, cache_positions=positions)


def text(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def fresh(tokens: list[int]) -> NDArray[np.float32]:
    """All logits of a sequence that never shared anything."""
    return engine(threads=1).forward(Rows.of(tokens), range(len(tokens)))


def go_on(one: Engine, tokens: list[int], start: int, sequence: int) -> NDArray[np.float32]:
    rows = Rows.of(tokens[start:], start, sequence)
    return one.forward(rows, range(len(tokens) - start))


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1, 150])
def test_both_go_on_from_a_fork_as_if_alone(length: int) -> None:
    one, first = engine(), text(150, 0)
    go_on(one, first, 0, 0)
    one.fork(0, 1, length)
    assert (one.length(0), one.length(1)) == (150, length)
    second = first[:length] + text(90, 1)
    assert np.array_equal(go_on(one, second, length, 1), fresh(second)[length:])
    longer = first + text(60, 2)
    assert np.array_equal(go_on(one, longer, 150, 0), fresh(longer)[150:])


def test_a_write_into_a_shared_page_is_not_seen_by_others() -> None:
    one, first = engine(), text(150, 0)
    go_on(one, first, 0, 0)
    for other in (1, 2):
        one.fork(0, other, 150)
    one.remove(1, 30)  # inside the first page
    changed = first[:30] + text(100, 1)
    assert np.array_equal(go_on(one, changed, 30, 1), fresh(changed)[30:])
    # In place, without removing: positions 70 to 79 of a page that 0 and 2 hold.
    rewritten = first[:70] + text(10, 2)
    assert np.array_equal(go_on(one, rewritten, 70, 2), fresh(rewritten)[70:])
    longer = first + text(20, 3)
    assert np.array_equal(go_on(one, longer, 150, 0), fresh(longer)[150:])


def test_what_is_shared_counts_once() -> None:
    one, first = engine(), text(150, 0)
    go_on(one, first, 0, 0)
    assert one.cache_pages() == 3
    full = one.cache_bytes()
    for other in range(1, 9):
        one.fork(0, other, 150)
    assert (one.cache_pages(), one.cache_bytes()) == (3, full)
    one.forward(Rows.of([1], 150, 4))
    assert (one.cache_pages(), one.cache_bytes()) == (4, full * 4 // 3)
    one.remove(0)
    assert one.cache_pages() == 4  # others hold them
    for other in range(1, 9):
        one.remove(other)
    assert one.cache_pages() == 0
    go_on(one, first, 0, 3)
    assert one.cache_bytes() == full * 4 // 3  # pages that were free


def test_a_fork_replaces_what_the_target_held() -> None:
    one, first = engine(), text(100, 0)
    go_on(one, first, 0, 0)
    go_on(one, text(200, 1), 0, 1)
    one.fork(0, 1, 80)
    assert (one.length(1), one.cache_pages()) == (80, 2)
    one.fork(0, 1, 0)
    assert one.length(1) == 0


def test_forks_that_make_no_sense() -> None:
    one = engine()
    go_on(one, text(100, 0), 0, 0)
    go_on(one, text(10, 0), 0, 1)
    with pytest.raises(DoesNotFitError, match="sequence 0 holds 100 positions, not 101"):
        one.fork(0, 1, 101)
    with pytest.raises(DoesNotFitError, match="not -1"):
        one.fork(0, 1, -1)
    with pytest.raises(UsageError, match="onto itself"):
        one.fork(0, 0, 10)
    assert one.length(1) == 10


def test_a_full_cache_says_so_and_loses_nothing() -> None:
    one, first = engine(pages=3), text(150, 0)
    go_on(one, first, 0, 0)
    with pytest.raises(CacheFullError, match=r"192 positions for all.*needs 64 more, free are 0"):
        one.forward(Rows.of([1], 0, 1))
    # All rows or none, also where the first passes of a long batch would have had room.
    one.remove(0, 64)
    with pytest.raises(CacheFullError, match="needs 192 more, free are 128"):
        go_on(one, text(150, 1), 0, 1)
    assert (one.length(0), one.length(1), one.cache_pages()) == (64, 0, 1)
    assert np.array_equal(go_on(one, first, 64, 0), fresh(first)[64:])


def test_copies_of_shared_pages_need_room_too() -> None:
    one, first = engine(pages=2), text(40, 0)
    go_on(one, first, 0, 0)
    one.fork(0, 1, 40)
    one.fork(0, 2, 40)
    rows = Rows(np.arange(3, dtype=np.int32), np.arange(3, dtype=np.int32), np.full(3, 40))
    with pytest.raises(CacheFullError, match="needs 128 more, free are 64"):
        one.forward(rows)
    one.remove(2)  # now the last of the two to write keeps the original
    two = Rows(rows.tokens[:2], rows.sequences[:2], rows.positions[:2])
    found = one.forward(two, range(2))
    assert one.cache_pages() == 2
    for sequence in range(2):
        assert np.array_equal(found[sequence], fresh([*first, sequence])[-1])


@pytest.mark.parametrize("positions", [0, -1])
def test_a_cache_without_room(positions: int) -> None:
    with pytest.raises(UsageError, match="cache_positions"):
        Engine(PLAN, TENSORS, 1, CONTEXT, cache_positions=positions)


@dataclass
class Naive:
    """Sequences as lists of tokens, each a copy of its own."""

    held: dict[int, list[int]] = field(default_factory=dict)

    def most_pages(self) -> int:
        return sum(-(-len(tokens) // PAGE) for tokens in self.held.values())


@pytest.mark.parametrize("seed", range(6))
def test_random_forks_cuts_and_batches_equal_naive_copies(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, naive = engine(pages=12, threads=1), Naive()
    refused = 0
    for step in range(60):
        a, b = (int(n) for n in random.choice(6, 2, replace=False))
        action = random.choice(["run", "run", "fork", "cut"])
        if action == "fork":
            length = some_length(one, naive, random, a)
            one.fork(a, b, length)
            naive.held[b] = naive.held.get(a, [])[:length]
        elif action == "cut":
            length = some_length(one, naive, random, a)
            one.remove(a, length)
            naive.held[a] = naive.held.get(a, [])[:length]
        else:
            refused += not run_some(one, naive, random, (a, b))
        for sequence in range(6):
            assert one.length(sequence) == len(naive.held.get(sequence, [])), step
        assert one.cache_pages() <= min(12, naive.most_pages())
    assert refused  # the bound was met


def some_length(one: Engine, naive: Naive, random: np.random.Generator, sequence: int) -> int:
    """One that the sequence can be cut to: a layer's window may have let go of what is between."""
    length = int(random.integers(0, len(naive.held.get(sequence, [])) + 1))
    return max(length, one.keeps_from(sequence)) if length else 0


def run_some(
    one: Engine, naive: Naive, random: np.random.Generator, sequences: tuple[int, ...]
) -> bool:
    """New tokens for these sequences in one batch, checked; False if the cache was full."""
    rows: list[tuple[int, int, int]] = []
    after = {}
    for sequence in sequences:
        held = naive.held.get(sequence, [])
        count = min(int(random.integers(1, 91)), CONTEXT - len(held))
        new = random.integers(0, VOCAB, count).tolist()
        rows += [(token, sequence, len(held) + i) for i, token in enumerate(new)]
        after[sequence] = held + new
    if not rows:
        return True
    tokens, owners, positions = zip(*rows, strict=True)
    batch = Rows(np.array(tokens, np.int32), np.array(owners, np.int32), np.array(positions))
    try:
        found = one.forward(batch, range(len(rows)))
    except CacheFullError:
        return False
    expected = {sequence: fresh(tokens) for sequence, tokens in after.items() if tokens}
    for logits, (_, sequence, position) in zip(found, rows, strict=True):
        assert logits.tobytes() == expected[sequence][position].tobytes()
    naive.held |= after
    return True
