"""The scheduler: the same answers in any company and any room, nobody stalled, nobody hurt."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trit.engine import PAGE, CacheFullError, Engine, Rows
from trit.errors import DoesNotFitError, UsageError
from trit.runtime.scheduler import AHEAD, APART, Run, Scheduler

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from small_plan import Parts, small_plan

VOCAB = 90
PLAN, TENSORS = small_plan(
    Parts(("q8_0",), width=64, inner=64, heads=2, kv_heads=1, head_dim=32, vocab=VOCAB, window=70)
)
CONTEXT = 5 * PAGE


class Greedy(Run[int]):
    """The likeliest token, `count` times; what it raises is told at `fails`."""

    def __init__(self, prompt: Sequence[int], count: int, fails: BaseException | None = None):
        super().__init__(prompt, len(prompt) + count)
        self.fails = fails

    def choose(self, logits: NDArray[np.float32]) -> tuple[int, int | None]:
        if self.fails is not None and len(self.tokens) == self.most - 12:
            raise self.fails
        token = int(np.argmax(logits))
        return token, None if len(self.tokens) + 1 == self.most else token


def text(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()  # type: ignore[no-any-return]


def engine(pages: int | None = None) -> Engine:
    return Engine(
        PLAN, TENSORS, 1, CONTEXT, cache_positions=None if pages is None else pages * PAGE
    )


ALONE = engine()


def alone(prompt: Sequence[int], count: int) -> list[int]:
    """The same by hand."""
    ALONE.remove()
    tokens: list[int] = []
    rows = Rows.of(prompt)
    while len(tokens) < count:
        tokens.append(int(np.argmax(ALONE.forward(rows)[0])))
        rows = Rows.of(tokens[-1:], len(prompt) + len(tokens) - 1)
    return tokens


def answers(scheduler: Scheduler, runs: Sequence[Run[int]]) -> list[list[int]]:
    found: dict[int, list[int]] = {id(run): [] for run in runs}
    for run, token in scheduler.follow(runs):
        found[id(run)].append(token)
    return list(found.values())


class Watch:
    """The batches an engine runs: rows by sequence."""

    def __init__(self, watched: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[dict[int, int]] = []
        forward = watched.forward

        def spy(rows: Rows, outputs: Any = None) -> Any:
            logits = forward(rows, outputs)
            sequences, counts = np.unique(rows.sequences, return_counts=True)
            self.batches.append(dict(zip(sequences.tolist(), counts.tolist(), strict=True)))
            return logits

        monkeypatch.setattr(watched, "forward", spy)

    @property
    def rows(self) -> int:
        return sum(sum(batch.values()) for batch in self.batches)


@pytest.mark.parametrize("pages", [None, 14, 7, 5])
@pytest.mark.parametrize("seed", range(3))
def test_any_company_and_any_room_give_the_same_answers(pages: int | None, seed: int) -> None:
    """Prompts of all lengths, many of which begin alike; some come later, one is dropped."""
    random = np.random.default_rng(seed)
    stem = text(150, 100)
    runs = []
    for number in range(14):
        prompt = stem[: random.integers(0, 150)] + text(int(random.integers(1, 90)), number)
        runs.append(Greedy(prompt, int(random.integers(1, min(70, CONTEXT - len(prompt) + 2)))))
    prompts = [list(run.tokens) for run in runs]
    one = engine(pages)
    scheduler = Scheduler(one, together=5, pass_rows=48, idle_positions=2 * PAGE)
    dropped = Greedy(text(200, 7), 50)
    scheduler.add(dropped)
    first, second = scheduler.follow(runs[:8]), scheduler.follow(runs[8:])
    found: dict[int, list[int]] = {id(run): [] for run in runs}
    for step in range(2000):
        of = second if step > 20 and step % 2 else first
        for run, token in [item] if (item := next(of, None)) is not None else []:
            found[id(run)].append(token)
        if step == 30:
            scheduler.drop(dropped)
        assert pages is None or one.cache_pages() <= pages
    assert dropped.ended and all(run.ended and run.error is None for run in runs)
    for run, prompt in zip(runs, prompts, strict=True):
        assert found[id(run)] == alone(prompt, run.most - len(prompt))
    scheduler.forget()
    assert one.cache_pages() == 0


def test_a_run_without_room_for_it_alone_ends_and_no_other() -> None:
    one = engine(pages=3)
    scheduler = Scheduler(one, idle_positions=0)
    small, large = Greedy(text(10, 0), 20), Greedy(text(150, 1), 100)
    with pytest.raises(CacheFullError, match="192 positions"):
        answers(scheduler, [large])
    assert one.cache_pages() == 0
    both = Greedy(text(150, 1), 100)
    follow = scheduler.follow([small])
    scheduler.add(both)
    assert [token for _, token in follow] == alone(text(10, 0), 20)
    while not both.ended:
        both.unread.clear()
        scheduler.step()
    assert isinstance(both.error, CacheFullError)


def test_work_that_has_the_engine_to_itself() -> None:
    """Between two steps, whoever takes them; sequences from APART on stay what they are."""
    one = engine()
    scheduler = Scheduler(one)
    run = Greedy(text(40, 0), 20)

    def read() -> int:
        one.forward(Rows.of(text(30, 1), 0, APART))
        return one.length(APART)

    def follow() -> list[int]:
        return answers(scheduler, [run])[0]

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(follow)
        assert scheduler.alone(read) == 30
        assert answer.result() == alone(text(40, 0), 20)
    assert scheduler.alone(read, unless=lambda: True) is None
    scheduler.alone(lambda: one.remove(APART))
    scheduler.forget()
    assert one.cache_pages() == 0


def test_memory_that_the_system_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine()
    scheduler = Scheduler(one)
    forward, refused = one.forward, []

    def scarce(rows: Rows, outputs: Any = None) -> Any:
        if len(set(rows.sequences.tolist())) > 1:
            refused.append(rows)
            raise MemoryError
        return forward(rows, outputs)

    monkeypatch.setattr(one, "forward", scarce)
    prompts = [text(20, seed) for seed in range(3)]
    found = answers(scheduler, [Greedy(prompt, 9) for prompt in prompts])
    assert found == [alone(prompt, 9) for prompt in prompts]
    assert refused

    def none(rows: Rows, outputs: Any = None) -> Any:
        raise MemoryError

    monkeypatch.setattr(one, "forward", none)
    with pytest.raises(DoesNotFitError, match="no memory left"):
        answers(scheduler, [Greedy(prompts[0], 9)])


def test_a_long_prompt_stalls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine()
    watch = Watch(one, monkeypatch)
    scheduler = Scheduler(one, pass_rows=32)
    talking = Greedy(text(5, 0), 30)
    follow = scheduler.follow([talking])
    next(follow)
    long, short = Greedy(text(300, 1), 5), Greedy(text(8, 2), 5)
    scheduler.add(long)
    scheduler.add(short)
    watch.batches.clear()
    for _ in range(8):
        next(follow)
    assert len(watch.batches) == 8  # a token each step
    assert all(sum(batch.values()) <= 32 for batch in watch.batches)
    assert len(long.unread) == 0 and len(short.unread) == 5  # half of the room was the short one's
    follow.close()


def test_what_one_raises_hurts_no_other() -> None:
    scheduler = Scheduler(engine())
    fails, lives = Greedy(text(9, 0), 20, ValueError("mine")), Greedy(text(9, 1), 20)
    follow = scheduler.follow([lives])
    scheduler.add(fails)
    assert [token for _, token in follow] == alone(text(9, 1), 20)
    assert fails.ended and str(fails.error) == "mine"
    with pytest.raises(ValueError, match="mine"):
        answers(scheduler, [Greedy(text(9, 0), 20, ValueError("mine"))])
    interrupted = Greedy(text(9, 0), 20, KeyboardInterrupt())
    lives = Greedy(text(9, 1), 20)
    scheduler.add(lives)
    scheduler.add(interrupted)
    found: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        while not interrupted.ended:
            scheduler.step()
            found += lives.unread
            lives.unread.clear()
    while not lives.ended:
        scheduler.step()
        found += lives.unread
        lives.unread.clear()
    assert found == alone(text(9, 1), 20)


def test_runs_that_cannot_be_run() -> None:
    scheduler = Scheduler(engine())
    for token in (-1, VOCAB):
        with pytest.raises(UsageError, match=f"token {token} is not in the vocabulary"):
            scheduler.add(Greedy([1, token], 5))


def test_prompts_that_begin_alike_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine()
    watch = Watch(one, monkeypatch)
    scheduler = Scheduler(one, pass_rows=32)
    stem = text(150, 0)
    runs = [Greedy([*stem, *text(4, seed)], 4) for seed in range(1, 6)]
    found = answers(scheduler, runs)
    assert found == [alone([*stem, *text(4, seed)], 4) for seed in range(1, 6)]
    assert [run.cached for run in runs] == [0, 150, 150, 150, 150]
    assert watch.rows == 150 + 5 * (4 + 3)
    assert one.cache_pages() <= 3 + 5  # the whole pages of the stem are shared


def test_what_is_idle_is_kept_up_to_its_positions_the_last_used_the_longest() -> None:
    one = engine()
    scheduler = Scheduler(one, idle_positions=4 * PAGE)
    prompts = [text(100, seed) for seed in range(3)]

    def cached(prompt: list[int]) -> int:
        run = Greedy(prompt, 1)
        answers(scheduler, [run])
        return run.cached

    assert [cached(prompts[0]), cached(prompts[1])] == [0, 0]
    assert cached(prompts[0]) == 99  # and so the other is the older one
    assert cached(prompts[2]) == 0
    assert one.cache_pages() <= 4
    assert cached([*prompts[0], 5]) == 100
    assert cached(prompts[1]) == 0


def test_a_chat_goes_on_without_a_copy() -> None:
    """What an idle sequence holds is taken over whole; a branch off it leaves the rest."""
    one = engine()
    scheduler = Scheduler(one)
    prompt = text(70, 0)
    said = answers(scheduler, [Greedy(prompt, 30)])[0]
    assert one.cache_pages() == 2
    longer = Greedy([*prompt, *said, 1, 2], 5)
    answers(scheduler, [longer])
    assert (longer.cached, one.cache_pages()) == (99, 2)
    branch = Greedy([*prompt, 3], 5)
    assert answers(scheduler, [branch])[0] == alone([*prompt, 3], 5)
    assert (branch.cached, one.cache_pages()) == (70, 3)
    again = Greedy([*prompt, *said, 1, 2], 5)
    answers(scheduler, [again])
    assert again.cached == 101


def test_threads_share_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine()
    watch = Watch(one, monkeypatch)
    scheduler = Scheduler(one)
    prompts = [text(20, seed) for seed in range(4)]
    found: dict[int, list[int]] = {}
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        gate.wait()
        found[number] = answers(scheduler, [Greedy(prompts[number], 200)])[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[number] for number in range(4)] == [alone(prompt, 200) for prompt in prompts]
    assert max(len(batch) for batch in watch.batches) > 1
    assert one.length(0) <= CONTEXT


def test_dropping_from_another_thread_while_a_step_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = engine()
    scheduler = Scheduler(one)
    inside, go_on = threading.Event(), threading.Event()
    forward = one.forward

    def slow(rows: Rows, outputs: Any = None) -> Any:
        inside.set()
        assert go_on.wait(30)
        return forward(rows, outputs)

    monkeypatch.setattr(one, "forward", slow)
    run = Greedy(text(20, 0), 50)
    scheduler.add(run)
    thread = threading.Thread(target=scheduler.step)
    thread.start()
    assert inside.wait(30)
    scheduler.drop(run)  # does not wait, and does not touch the engine
    assert not run.ended
    scheduler.forget()
    go_on.set()
    thread.join(30)
    assert run.ended and not run.unread
    assert one.cache_pages() == 0


def test_readers_that_do_not_come_hold_up_nobody() -> None:
    scheduler = Scheduler(engine(), together=2)
    left = [scheduler.follow([Greedy(text(10, seed), 60)]) for seed in range(3)]
    begun = [[next(follow)[1]] for follow in left]
    assert answers(scheduler, [Greedy(text(10, 9), 60)])[0] == alone(text(10, 9), 60)
    for seed, follow in enumerate(left):
        tokens = begun[seed] + [token for _, token in follow]
        assert tokens == alone(text(10, seed), 60)


def test_nobody_runs_far_ahead_of_the_reader() -> None:
    scheduler = Scheduler(engine())
    idle = Greedy(text(10, 0), 100)
    scheduler.add(idle)
    answers(scheduler, [Greedy(text(10, 1), 100)])
    assert len(idle.unread) == AHEAD


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """A step that can do nothing would be taken for ever; pytest's own limit is none."""
    import faulthandler

    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
