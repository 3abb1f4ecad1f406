"""Runs many sequences through one engine: each step is one batch of all that can go on.

    scheduler = Scheduler(engine)
    for run, item in scheduler.follow([run_a, run_b]): ...   # drives the steps, from any thread

A step takes the next token of every sequence that decodes, with drafts to verify (lookup.py), and a
bounded number of prompt rows, shared evenly: a long prompt stalls nobody. Sequences come and go
between steps. There is no thread of our own: whoever waits for an answer runs the step, for all.

The engine's logits do not depend on the company and draws are keyed by (seed, position), so nothing
here changes an answer: what is batched with what, what is drafted, which prefix is reused, or that
a sequence was set back for want of room and run again.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trit.engine import CacheFullError, Engine, Rows
from trit.errors import DoesNotFitError, UsageError
from trit.runtime._prefixes import Held, Prefixes, shared
from trit.runtime.lookup import Costs, Lookup

# Rows per step while prompts are read, as quick as more of them; Ctrl-C is heard between steps.
PASS_ROWS = 64
TOGETHER = 16  # sequences that are run at the same time
AHEAD = 16  # items a run may be ahead of its reader
APART = 1 << 30  # sequences from here on are not the scheduler's
_COPIED = APART - 1
_NO_MEMORY = (
    "the system has no memory left for the cache of keys and values. Choose a smaller --ctx-size, "
    "or fewer sequences at a time."
)

T = TypeVar("T")
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """What a cache holds of `length` tokens: pages in the order of Engine.read_pages, of each group
    from its `first` one on."""

    length: int
    first: Sequence[int]
    pages: Iterator[NDArray[np.uint8]]


class Run(ABC, Generic[T]):
    """A sequence to be run; a subclass chooses its tokens and says what its reader gets.

    tokens    the prompt and what was chosen
    unread    what `choose` returned and nobody has read
    ended     nothing more will come; `error` says why if it was not the end
    cached    how many tokens of the prompt were in the cache
    drafted   guesses that were run; `accepted` of them saved a step
    """

    def __init__(self, prompt: Sequence[int], most: int) -> None:
        """`most`: tokens that the sequence may have in the end, the last of which is not run."""
        self.tokens = list(prompt)
        self.most = most
        self.unread: deque[T] = deque()
        self.ended = self.dropped = False
        self.error: BaseException | None = None
        self.cached = self.drafted = self.accepted = 0
        # The scheduler's: whether and where it is in the cache, how many tokens that holds.
        self.begun = False
        self.sequence: int | None = None
        self.held = 0
        self.lookup = Lookup(self.tokens)

    @abstractmethod
    def choose(self, logits: Logits) -> tuple[T, int | None]:
        """What the reader gets, and the token it goes on with (None: it is over), from (vocab,).

        Called once per token, in order. What it raises ends this run and no other.
        """

    @property
    def rest(self) -> int:
        """Tokens to be run before the next one can be chosen."""
        return len(self.tokens) - self.held

    @property
    def waits_for_reader(self) -> bool:
        return len(self.unread) >= AHEAD


@dataclass(frozen=True)
class _Part:
    """Rows of one run in a batch: tokens of its own, then `draft`, which may be wrong.

    `answers`: how many of the rows, the last ones, are asked for logits.
    """

    run: Run[object]
    tokens: list[int]
    draft: list[int]
    answers: int


class Scheduler:
    """The sequences of one engine. Methods may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        pass_rows: int = PASS_ROWS,
        together: int = TOGETHER,
        idle_positions: int | None = None,
        draft_max: int = 0,
    ) -> None:
        """
        pass_rows       rows of a step while prompts are read
        together        runs under way at the same time; more of them wait
        idle_positions  of the cache, kept for prompts to come (None: a context)
        draft_max       most tokens guessed ahead for a run; 0: none
        """
        self.engine = engine
        self.pass_rows = pass_rows
        self._together = together
        self._draft_max = draft_max
        self._prefixes = Prefixes(engine, engine.ctx if idle_positions is None else idle_positions)
        self._costs = Costs()
        self._waiting: deque[Run[object]] = deque()
        self._running: list[Run[object]] = []  # in the order in which they came
        self._full = False  # nobody comes in before somebody leaves
        self._forget = False
        self._changed = threading.Condition()
        self._driver: int | None = None  # the thread that runs a step; it alone uses the engine

    def add(self, run: Run[T]) -> None:
        """Let `run` take part from the next step on. UsageError for what the engine cannot run."""
        vocab = self.engine.plan.vocab_size
        wrong = next((token for token in run.tokens if not 0 <= token < vocab), None)
        if wrong is not None:
            raise UsageError(f"token {wrong} is not in the vocabulary; ids are below {vocab}.")
        assert 0 < len(run.tokens) < run.most <= self.engine.ctx + 1
        self._waiting.append(run)  # type: ignore[arg-type]  # items go to their own reader alone

    def drop(self, run: Run[T]) -> None:
        """End a run: at once, or with the step that is under way in another thread."""
        run.dropped = True
        self._between_steps()

    def forget(self) -> None:
        """Empty the cache of all that no run uses."""
        self._forget = True
        self._between_steps()

    def copy_out(self, tokens: Sequence[int], write: Callable[[Kept], None]) -> int:
        """Give `write` what the cache keeps of the beginning of `tokens`; how many tokens that is.

        `write` is not called for none. No step is under way meanwhile.
        """

        def work() -> int:
            held, count = self._prefixes.longest([*tokens, -1], ())
            if held is None:
                return 0
            self.engine.fork(held.sequence, _COPIED, count)
            try:
                pages = self.engine.read_pages(_COPIED)
                write(Kept(count, self.engine.first_pages(_COPIED), pages))
            finally:
                self.engine.remove(_COPIED)
            return count

        return self.alone(work) or 0

    def copy_in(self, tokens: Sequence[int], kept: Kept) -> None:
        """Keep for prompts to come what `copy_out` gave of the first `kept.length` of `tokens`.

        Errors as for `Engine.restore`; then nothing is kept.
        """

        def fill(sequence: int) -> None:
            self.engine.restore(sequence, kept.length, kept.first, kept.pages)

        self.alone(lambda: self._prefixes.adopt(tokens[: kept.length], fill))

    def follow(self, runs: Sequence[Run[T]]) -> Generator[tuple[Run[T], T], None, None]:
        """Add the runs and yield what each chooses, until all have ended. Drives the steps.

        Closing the iterator drops them; so does an error, the first one of a run being raised.
        """
        live = list(runs)

        def some_news() -> bool:
            return any(run.unread or run.ended for run in live)

        try:
            for run in runs:
                self.add(run)
            while live:
                self.step(unless=some_news)
                for run in live:
                    ended = run.ended  # before what was chosen last is read
                    while run.unread:
                        yield run, run.unread.popleft()
                    if ended and run.error is not None:
                        raise run.error
                live = [run for run in live if not run.ended or run.unread]
        finally:
            for run in runs:
                self.drop(run)

    def step(self, unless: Callable[[], bool] = lambda: False) -> None:
        """Run one batch once nobody else does; nothing if by then `unless` holds."""
        self.alone(self._admit_and_run, unless)

    def alone(self, work: Callable[[], T], unless: Callable[[], bool] = lambda: False) -> T | None:
        """What `work` returns, which has the engine to itself: no step is under way meanwhile.

        None if, when its turn comes, `unless` holds. Sequences from APART on are nobody's.
        """
        me = threading.get_ident()
        try:
            with self._changed:
                self._changed.wait_for(lambda: unless() or self._driver in (None, me))
                if unless():
                    return None
                self._driver = me
            return work()
        finally:
            with self._changed:
                if self._driver == me:
                    self._sweep()
                    self._driver = None
                    self._changed.notify_all()

    def _admit_and_run(self) -> None:
        self._admit()
        self._run_batch()

    def _between_steps(self) -> None:
        with self._changed:
            if self._driver in (None, threading.get_ident()):
                self._sweep()
                self._changed.notify_all()

    def _sweep(self) -> None:
        """What was asked for while a step was under way."""
        for run in [run for run in (*self._running, *self._waiting) if run.dropped]:
            self._end(run)
        if self._forget:
            self._forget = False
            self._prefixes.clear()

    def _end(self, run: Run[object]) -> None:
        if run.sequence is None:
            self._waiting.remove(run)
        else:
            self._leave(run)
        run.ended = True
        self._full = False

    def _leave(self, run: Run[object]) -> None:
        """Take its sequence from a run; what that holds is kept as long as there is room."""
        assert run.sequence is not None
        self._running.remove(run)
        self._prefixes.take(Held(run.sequence, run.tokens[: run.held]))
        run.sequence, run.held = None, 0

    def _set_back(self, run: Run[object]) -> None:
        self._leave(run)
        self._waiting.appendleft(run)

    def _admit(self) -> None:
        """Let those in who wait, as far as there is room."""
        if not self._waiting:
            return
        ready = [run for run in self._running if not run.waits_for_reader]
        if self._full and ready:
            return
        self._full = False
        for run in list(self._waiting):  # a copy: other threads add
            if run.dropped or run.waits_for_reader:
                continue
            if len(self._running) >= self._together and not self._set_back_unread():
                return
            used = [Held(one.sequence, one.tokens[: one.held]) for one in self._running]  # type: ignore[arg-type]
            held = self._prefixes.longest(run.tokens, used)[1]
            coming = (shared(one.tokens, run.tokens) for one in ready if one.rest > 1)
            if max(coming, default=0) > held:
                continue  # soon there is more to share
            run.sequence, run.held = self._prefixes.give(run.tokens, used)
            if not run.begun:
                run.begun, run.cached = True, run.held
            self._waiting.remove(run)
            self._running.append(run)
            ready.append(run)

    def _set_back_unread(self) -> bool:
        """Make room at the expense of a run whose reader does not come."""
        run = next((run for run in reversed(self._running) if run.waits_for_reader), None)
        if run is not None:
            self._set_back(run)
        return run is not None

    def _run_batch(self) -> None:
        drafting = self._draft_max > 0
        while parts := self._parts(drafting):
            begun = time.perf_counter()
            try:
                logits = self._forward(parts)
            except (CacheFullError, MemoryError) as error:
                if not drafting:
                    self._make_room(error)
                drafting = False
                continue
            if self._draft_max and all(part.run.rest == 1 for part in parts):
                rows = len(parts) + sum(len(part.draft) for part in parts)
                self._costs.note(rows, time.perf_counter() - begun)
            first = 0
            for part in parts:
                self._advance(part, logits[first : first + part.answers])
                first += part.answers
            return

    def _parts(self, drafting: bool) -> list[_Part]:
        """The rows of a step."""
        active = [run for run in self._running if not (run.dropped or run.waits_for_reader)]
        parts = [_Part(run, run.tokens[-1:], [], 1) for run in active if run.rest == 1]
        reading = sorted((run for run in active if run.rest > 1), key=lambda run: run.rest)
        if not reading:
            return self._drafted(parts) if drafting else parts
        # One pass in all, but half of one for prompts whatever the company.
        room = max(self.pass_rows - len(parts), self.pass_rows // 2, 1)
        for number, run in enumerate(reading):
            count = min(run.rest, -(-room // (len(reading) - number)))
            room -= count
            if count:
                tokens = run.tokens[run.held : run.held + count]
                parts.append(_Part(run, tokens, [], int(count == run.rest)))
        return parts

    def _drafted(self, parts: list[_Part]) -> list[_Part]:
        """The same with a draft where it is expected to pay."""
        rows = len(parts)
        tokens = float(rows)  # expected of the step
        drafted = []
        for part in parts:
            run = part.run
            room = min(self._draft_max, self.pass_rows - rows, run.most - len(run.tokens) - 1)
            draft, expected = run.lookup.guess(room, self._costs, rows, tokens)
            rows += len(draft)
            tokens += expected
            drafted.append(_Part(run, part.tokens, draft, 1 + len(draft)))
        return drafted

    def _forward(self, parts: Sequence[_Part]) -> Logits:
        tokens: list[int] = []
        sequences: list[int] = []
        positions: list[int] = []
        outputs: list[int] = []
        for part in parts:
            run = part.run
            assert run.sequence is not None
            # Drafts that were refused, and what an interrupted pass has written.
            self.engine.remove(run.sequence, run.held)
            rows = part.tokens + part.draft
            tokens += rows
            sequences += [run.sequence] * len(rows)
            positions += range(run.held, run.held + len(rows))
            outputs += range(len(tokens) - part.answers, len(tokens))
        batch = Rows(
            np.array(tokens, np.int32), np.array(sequences, np.int32), np.array(positions, np.int64)
        )
        return self.engine.forward(batch, outputs)

    def _make_room(self, error: CacheFullError | MemoryError) -> None:
        """Free pages: idle ones, else those of the last that came; alone, a run has to end."""
        if self._prefixes.evict() or self._set_back_unread():
            return
        run = self._running[-1]
        if len(self._running) > 1:
            self._set_back(run)
            self._full = True
        else:
            run.error = error if isinstance(error, CacheFullError) else DoesNotFitError(_NO_MEMORY)
            self._end(run)

    def _advance(self, part: _Part, logits: Logits) -> None:
        """Count the rows as held and choose, as long as the draft is what was chosen."""
        run, draft = part.run, part.draft
        run.held += len(part.tokens)
        if not part.answers:
            return
        run.drafted += len(draft)
        accepted = 0
        for row in logits:
            if run.dropped:
                return
            try:
                item, token = run.choose(row)
            except BaseException as error:
                run.error = error
                self._end(run)
                if isinstance(error, Exception):
                    return
                raise
            run.unread.append(item)
            if token is None:
                self._end(run)
                return
            run.tokens.append(token)
            if accepted == len(draft) or token != draft[accepted]:
                break
            accepted += 1
            run.accepted += 1
            run.held += 1
        run.lookup.learn(accepted)
