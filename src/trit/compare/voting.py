"""The blind test itself: what a voter is shown, and the vote. What names a model stays here.

A presentation has a random token that is good for one vote. Until then it is shown again as it was,
also after an undo, so that nobody can have sides dealt anew. Answers that are the same are a tie
that nobody is asked about; it is written down as such.

In the *named* arm the names are shown: pairs that this voter has voted on blind, sides dealt anew.
What changes between the two votes is what names do.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from trit.compare.plan import following, own, schedule
from trit.compare.store import Store
from trit.compare.study import BELIEFS, CHOICES, Arm, Item
from trit.errors import UsageError


@dataclass(frozen=True)
class Presentation:
    """Two answers to be voted on.

    texts   that to be called 1, and 2
    names   of the models, in the named arm alone
    """

    token: str
    prompt: str
    texts: tuple[str, str]
    names: tuple[str, str] | None


@dataclass(frozen=True)
class Progress:
    """`voted` comparisons of `planned`, of one voter; pairs with the same texts count as voted."""

    voted: int
    planned: int


class Voting:
    """Votes on a study, in one arm. Safe to share between threads."""

    def __init__(self, store: Store, arm: Arm = "blind") -> None:
        self.store, self.arm = store, arm
        self._lock = threading.Lock()  # one item at a time is chosen

    def next(self, voter: str) -> Presentation | None:
        """What this voter is to see: a prompt of their own that was just answered, what is still
        open, else by the plan; None: that was all."""
        with self._lock:
            fresh = self._fresh(voter)
            if fresh is not None:
                return self._presentation(self.store.present(voter, self.arm, fresh), fresh)
            found = self.store.open_presentation(voter, self.arm)
            if found is not None:
                return self._presentation(*found)
            while (item := self._following(voter)) is not None:
                token = self.store.present(voter, self.arm, item)
                first, second = self._texts(item)
                if first != second:
                    return self._presentation(token, item)
                self.store.add_vote(token, "same")
            return None

    def vote(self, token: str, choice: str) -> None:
        """UsageError for a token that is none or has been voted on, or a choice that is none."""
        if choice not in CHOICES:
            raise UsageError(f"choice is {choice!r:.40}; expected one of {', '.join(CHOICES)}.")
        if not self.store.add_vote(token, choice):
            raise UsageError("no such presentation is open: it has been voted on, or never was.")

    def believe(self, token: str, heavier: str) -> None:
        """Which answer of a presentation that has been voted on the voter takes for the heavier
        file's. UsageError as for `vote`."""
        if heavier not in BELIEFS:
            raise UsageError(f"heavier is {heavier!r:.40}; expected one of {', '.join(BELIEFS)}.")
        if not self.store.add_belief(token, heavier):
            raise UsageError("no vote stands for this presentation, or the belief is known.")

    def undo(self, voter: str) -> Presentation | None:
        """Take back the last vote, which stays on record; the same pair once more, with a token of
        its own. None where there is no vote."""
        with self._lock:
            found = self.store.undo(voter, self.arm)
            if found is None:
                return None
            before, item = found
            token = self.store.present(voter, self.arm, item, again=before)
            return self._presentation(token, item)

    def progress(self, voter: str) -> Progress:
        """How far this voter is."""
        planned = self._asked_about(voter, self._items(voter) + self._own(voter))
        return Progress(len(self.store.seen(voter, self.arm)), len(planned))

    def planned(self) -> int:
        """Comparisons of one pass over the study; prompts of voters' own are none of it."""
        return len(self._items(""))

    def _fresh(self, voter: str) -> Item | None:
        """The first pair of a prompt of the voter's own that no answers were shown to."""
        if self.arm == "named":
            return None
        shown = self.store.presented(voter, self.arm)
        items = [item for item in self._own(voter) if item.prompt not in shown]
        return next((item for item in items if len(set(self._texts(item))) == 2), None)

    def _following(self, voter: str) -> Item | None:
        seen = self.store.seen(voter, self.arm)
        items = self._asked_about(voter, self._items(voter))
        found = following(items, seen.keys(), self.store.votes(self.arm))
        return found or following(self._asked_about(voter, self._own(voter)), seen.keys(), {})

    def _asked_about(self, voter: str, items: list[Item]) -> list[Item]:
        """Of these, what the arm is about."""
        if self.arm == "blind":
            return items
        blind = self.store.seen(voter, "blind")
        return [
            item
            for item in items
            if blind.get(item.key, "same") != "same" and item.first[0] != item.second[0]
        ]

    def _items(self, voter: str) -> list[Item]:
        """Of the study, in this voter's order."""
        store = self.store
        return schedule(store.answered(), len(store.models), store.settings, self._chance(voter))

    def _own(self, voter: str) -> list[Item]:
        """Of the voter's own prompts, in the order they were asked."""
        count, settings = len(self.store.models), self.store.settings
        chance = self._chance(voter)
        return [i for p in self.store.asked(voter) for i in own(p, count, settings, chance)]

    def _chance(self, voter: str) -> str:
        chance = f"{self.store.secret}/{voter}"
        return chance if self.arm == "blind" else f"{chance}/named"

    def _texts(self, item: Item) -> tuple[str, str]:
        first, second = (self.store.text(d, item.prompt) for d in (item.first, item.second))
        return first.strip(), second.strip()

    def _presentation(self, token: str, item: Item) -> Presentation:
        first, second = (self.store.models[model].name for model, _ in (item.first, item.second))
        return Presentation(
            token=token,
            prompt=self.store.prompts()[item.prompt],
            texts=self._texts(item),
            names=(first, second) if self.arm == "named" else None,
        )
