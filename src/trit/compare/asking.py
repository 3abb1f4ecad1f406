"""Prompts of a voter's own: answered by all models of a study while the voter waits.

The models are opened one after the other, so that no more memory is taken than the largest needs;
sampling and seeds are the study's, and the answers are kept as all others are, with who asked and
when. A prompt is kept with all its answers or not at all; one that is cancelled leaves nothing.

How long it takes must not tell who wrote what. A heavier file writes more slowly: from the time and
the lengths of both texts one could reckon whose the long one is. So answers are held back until all
of their tokens might have been written by the slowest model, on a machine that is as slow at the
moment as it was to the model that it slowed most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from trit.compare.making import answer, ids, require_same
from trit.compare.store import Store
from trit.compare.study import Answer
from trit.errors import UsageError
from trit.runtime.model import Model, load

MOST_PROMPTS = 10  # of a voter, in one study
MOST_OF_ALL = 1000  # of all voters: names cost nothing
MOST_LETTERS = 2000
SLACK = 1.25  # a model's tokens do not all take the same time
_SLOWEST = 4.0  # times the best pace; who waits for a machine that stood still shall not wait more
_FEW = 8  # tokens that say little of how long one takes


class _CancelledError(Exception):
    """Nobody waits for the answers any more."""


@dataclass(frozen=True)
class Asked:
    """A prompt that is answered. `same`: all models wrote the same, so there is nothing to vote on.
    `left`: prompts that this voter may still ask."""

    same: bool
    left: int


class Asking:
    """Answers prompts on a study. Safe to share between threads: one prompt at a time."""

    def __init__(self, store: Store, most: int = MOST_PROMPTS, threads: int | None = None) -> None:
        """`most`: prompts of one voter. `threads`: as for `trit.load`."""
        if most < 1:
            raise UsageError(f"most is {most}; expected 1 or more prompts of a voter's own.")
        self.store, self._most, self._threads = store, most, threads
        self._making = threading.Lock()
        self._checked: set[int] = set()  # models whose files are those of the study
        self._pace: dict[int, float] = {}  # seconds of a token, by model: the best by now

    def left(self, voter: str) -> int:
        """How many prompts this voter may still ask."""
        return max(0, self._most - len(self.store.asked(voter)))

    def checked(self, voter: str, prompt: str) -> str:
        """The prompt as it is asked. UsageError for what is not answered."""
        text = prompt.strip()
        if not text:
            raise UsageError("the prompt is empty; write something to be answered.")
        if len(text) > MOST_LETTERS:
            raise UsageError(
                f"the prompt has {len(text):,} characters; the most is {MOST_LETTERS:,}. "
                "Shorten it."
            )
        if len(self.store.own_prompts()) >= MOST_OF_ALL:
            raise UsageError(f"the study has {MOST_OF_ALL:,} prompts of voters, the most it takes.")
        if not self.left(voter):
            raise UsageError(
                f"all {self._most} prompts that a voter may ask are asked; vote on the others."
            )
        number = _number(self.store, text)
        if number is not None:
            owners = self.store.own_prompts().get(number)
            if owners is None:
                raise UsageError("the study has this prompt already: it comes in its turn.")
            if voter in owners:
                raise UsageError("you have asked this prompt already.")
        return text

    def ask(self, voter: str, prompt: str, cancelled: threading.Event) -> Asked | None:
        """Have all models answer; None if `cancelled` meanwhile.

        UsageError as for `checked`, and for a prompt that does not fit the context; TritError where
        a model's file is another one by now; errors of `trit.load`.
        """
        with self._making:
            asked_at, text = time.time(), self.checked(voter, prompt)
            number = _number(self.store, text)  # another voter's: the same answers
            answers: list[Answer] = []
            if number is None:
                number = max(self.store.prompts(), default=0) + 1
                try:
                    answers = self._answers(number, text, cancelled)
                    _wait(self._hold(answers), cancelled)
                except _CancelledError:
                    return None
            if not self.store.add_own_prompt(voter, number, text, asked_at, answers):
                raise UsageError("the study got new prompts meanwhile; ask once more.")
        texts = {self.store.text((m.id, 0), number).strip() for m in self.store.models}
        return Asked(same=len(texts) == 1, left=self.left(voter))

    def _answers(self, number: int, text: str, cancelled: threading.Event) -> list[Answer]:
        """One of each model."""

        def watch() -> None:
            _wait(0, cancelled)

        settings, made = self.store.settings, []
        for row in self.store.models:
            watch()
            if row.id not in self._checked:
                require_same(row, watch)
                self._checked.add(row.id)
            # Without drafts, which write the faster the more a text repeats itself.
            with load(row.path, settings.ctx, self._threads, parallel=1, draft_max=0) as model:
                _require_room(model, text, settings.system)
                made += answer(model, [((row.id, 0), number)], {number: text}, settings, watch)
        return made

    def _hold(self, answers: Sequence[Answer]) -> float:
        """Seconds that are left to wait; what a model's tokens take is remembered."""
        paces, slowdown = [], 1.0
        for one in answers:
            pace = one.generation_seconds / max(1, one.tokens)
            best = min(pace, self._pace.get(one.draw[0], pace))
            if one.tokens >= _FEW:
                self._pace[one.draw[0]] = best
                slowdown = max(slowdown, pace / best)
            paces.append(self._pace.get(one.draw[0], pace))
        spent = sum(one.generation_seconds for one in answers)
        return hold([one.tokens for one in answers], spent, min(slowdown, _SLOWEST) * max(paces))


def hold(tokens: Sequence[int], spent: float, pace: float) -> float:
    """Seconds to wait so that answers of so many `tokens`, which took `spent` seconds, take as long
    as they would have of a model that needs `pace` seconds for each, and a little more."""
    return max(0.0, SLACK * pace * sum(tokens) - spent)


def _wait(seconds: float, cancelled: threading.Event) -> None:
    if cancelled.wait(seconds):
        raise _CancelledError


def _number(store: Store, text: str) -> int | None:
    """That of a prompt that is there."""
    return next((number for number, known in store.prompts().items() if known == text), None)


def _require_room(model: Model, text: str, system: str | None) -> None:
    count, most = len(ids(model, text, system)), model.ctx
    if count > most:
        raise UsageError(
            f"the prompt has {count:,} tokens; the study has room for {most:,} with the answer. "
            "Shorten it."
        )
