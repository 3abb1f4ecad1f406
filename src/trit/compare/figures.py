"""What the votes say: who was preferred, whether people can tell, what they believe, what is left.

Every interval is of 95%, over prompts like these; the voters are the ones who voted. A tie and
"both bad" are half a win for either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.compare import _shares, _signs, _strengths
from trit.compare.study import Ballot
from trit.evaluate._interval import Interval

Doubles = NDArray[np.float64]
BOUND = 0.1  # a score this near a half is called no difference that matters
_SCORES = {"heavier": 1.0, "lighter": 0.0, "tie": 0.5, "bad": 0.5, "same": 0.5}


@dataclass(frozen=True)
class Pair:
    """Two models and the votes on them.

    votes       all that stand; `same` of them are pairs of the same text, ties nobody was asked for
    bad         "both bad", beside the `ties`
    score       of the heavier: share of wins, and half of the ties
    decided     its share of the votes that name a winner; None without any
    tied        share of ties, "both bad" included, in the votes that were asked for
    p_fixed     that the votes fall so, or further apart, if nobody could tell: for a number of
                votes fixed before any result was seen
    p_always    the same whenever it is looked at
    p           the one of the two that holds, times the pairs it was picked from (S. Holm 1979)
    more_votes  that would bring p_always below .05 with a chance of 80% if the share of `decided`
                is the true one, on prompts not voted on yet; None: more than anybody casts
    bound_votes that would narrow the score's interval to BOUND on either side; 0: it is
    """

    heavier: str
    lighter: str
    votes: int
    wins: int
    losses: int
    ties: int
    bad: int
    same: int
    score: Interval | None
    decided: Interval | None
    tied: Interval | None
    p_fixed: float
    p_always: float
    p: float
    more_votes: int | None
    bound_votes: int | None

    @property
    def told(self) -> bool:
        """Whether it is shown that people can tell the two apart."""
        return self.p < _signs.ALPHA

    @property
    def alike(self) -> bool:
        """Whether it is shown that neither is preferred by more than BOUND."""
        return self.score is not None and (
            self.score.low >= 0.5 - BOUND and self.score.high <= 0.5 + BOUND
        )


@dataclass(frozen=True)
class Beliefs:
    """Which file voters took for the heavier one.

    said     votes after which they named one
    right    share of these that was
    liked    of those that name a winner too: how often it was believed to be the heavier
    heavier  and how often it was
    gap      liked − heavier: how much more voters believe in weight than their own votes do
    """

    said: int
    right: Interval | None
    liked: Interval | None
    heavier: Interval | None
    gap: Interval | None


@dataclass(frozen=True)
class Catches:
    """Pairs of two answers of one model: what voters see there is chance.

    decided   the share in which they named a winner, beside `elsewhere`, that of the other pairs
    """

    votes: int
    decided: Interval | None
    elsewhere: Interval | None


@dataclass(frozen=True)
class Shift:
    """What names do: the heavier's score with names shown less that of the same voters, prompts
    and pairs before, blind."""

    heavier: str
    lighter: str
    votes: int
    blind: float
    named: float
    change: Interval | None


def pairs(ballots: Sequence[Ballot], names: Sequence[str], looked: bool) -> list[Pair]:
    """Each pair of models `names`, the heaviest first. `looked`: results of fewer votes were seen
    before, so that p_fixed does not hold."""
    found = [
        _pair([b for b in ballots if (b.heavier, b.lighter) == (i, j)], names[i], names[j])
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    raw = [pair.p_always if looked else pair.p_fixed for pair in found]
    return [Pair(**vars(pair) | {"p": p}) for pair, p in zip(found, _holm(raw), strict=True)]


def strengths(ballots: Sequence[Ballot], models: int, seed: int) -> list[Interval] | None:
    """Elo of each model less the heaviest's, by all votes together."""
    kept = [b for b in ballots if b.heavier != b.lighter]
    places = {prompt: row for row, prompt in enumerate(dict.fromkeys(b.prompt for b in kept))}
    scores = np.zeros((len(places), models, models))
    for ballot in kept:
        value, row = _SCORES[ballot.choice], places[ballot.prompt]
        scores[row, ballot.heavier, ballot.lighter] += value
        scores[row, ballot.lighter, ballot.heavier] += 1 - value
    return _strengths.strengths(scores, seed)


def beliefs(ballots: Sequence[Ballot]) -> Beliefs:
    """Of votes on files that differ in weight."""
    said = [b for b in ballots if b.believed in ("heavier", "lighter")]
    winners = [b for b in said if b.choice in ("heavier", "lighter")]
    liked = np.array([b.believed == b.choice for b in winners])
    heavier = np.array([b.choice == "heavier" for b in winners])
    prompts = _prompts(winners)
    return Beliefs(
        said=len(said),
        right=_shares.share(np.array([b.believed == "heavier" for b in said]), _prompts(said)),
        liked=_shares.share(liked, prompts),
        heavier=_shares.share(heavier, prompts),
        gap=_shares.difference(heavier.astype(np.float64), liked.astype(np.float64), prompts),
    )


def catches(ballots: Sequence[Ballot]) -> Catches:
    """Pairs of one model against the others, where somebody was asked."""
    asked = [b for b in ballots if b.choice != "same"]
    own = [b for b in asked if b.heavier == b.lighter]
    others = [b for b in asked if b.heavier != b.lighter]
    return Catches(len(own), _decided_share(own), _decided_share(others))


def first_chosen(ballots: Sequence[Ballot]) -> Interval | None:
    """How often the answer shown first won, of the votes that name a winner: a half if its place
    does nothing."""
    kept = [b for b in ballots if b.first is not None]
    return _shares.share(np.array([b.first for b in kept], dtype=bool), _prompts(kept))


def shifts(blind: Sequence[Ballot], named: Sequence[Ballot], names: Sequence[str]) -> list[Shift]:
    """Of each pair that was voted on with names."""
    before = {(b.voter, b.prompt, b.heavier, b.lighter): _SCORES[b.choice] for b in blind}
    found = []
    for heavier, lighter in sorted({(b.heavier, b.lighter) for b in named}):
        kept = [
            b for b in named
            if (b.heavier, b.lighter) == (heavier, lighter)
            and (b.voter, b.prompt, heavier, lighter) in before
        ]  # fmt: skip
        if kept:
            first = np.array([before[b.voter, b.prompt, heavier, lighter] for b in kept])
            second = _values(kept)
            change = _shares.difference(first, second, _prompts(kept))
            means = float(first.mean()), float(second.mean())
            found.append(Shift(names[heavier], names[lighter], len(kept), *means, change))
    return found


def _pair(ballots: Sequence[Ballot], heavier: str, lighter: str) -> Pair:
    count = {name: sum(b.choice == name for b in ballots) for name in _SCORES}
    wins, losses = count["heavier"], count["lighter"]
    asked = [b for b in ballots if b.choice != "same"]
    winners = [b for b in asked if b.choice in ("heavier", "lighter")]
    score = _shares.score(_values(ballots), _prompts(ballots))
    return Pair(
        heavier=heavier,
        lighter=lighter,
        votes=len(ballots),
        wins=wins,
        losses=losses,
        ties=count["tie"],
        bad=count["bad"],
        same=count["same"],
        score=score,
        decided=_shares.share(_values(winners) == 1.0, _prompts(winners)),
        tied=_shares.share(_values(asked) == 0.5, _prompts(asked)),
        p_fixed=_signs.sign_flip(_by_prompt(winners).values()),
        p_always=_signs.always(_firsts(winners)),
        p=1.0,
        more_votes=_more_votes(winners, len(ballots)),
        bound_votes=None if score is None else _bound_votes(score, len(ballots)),
    )


def _more_votes(winners: Sequence[Ballot], votes: int) -> int | None:
    """Votes that name a winner are what counts; the others come with them as they have so far."""
    if not winners:
        return None
    firsts = _firsts(winners)
    if _signs.always(firsts) < _signs.ALPHA:
        return 0
    share = sum(b.choice == "heavier" for b in winners) / len(winners)
    more = _signs.more_votes(sum(firsts), len(firsts) - sum(firsts), share)
    return None if more is None else math.ceil(more * votes / len(winners))


def _bound_votes(score: Interval, votes: int) -> int:
    """An interval narrows as the root of the votes grows."""
    half = (score.high - score.low) / 2
    return max(0, math.ceil(votes * ((half / BOUND) ** 2 - 1)))


def _firsts(winners: Iterable[Ballot]) -> list[bool]:
    """Whether the heavier won, of the first vote on each prompt."""
    first: dict[int, bool] = {}
    for ballot in winners:
        first.setdefault(ballot.prompt, ballot.choice == "heavier")
    return list(first.values())


def _by_prompt(winners: Iterable[Ballot]) -> dict[int, int]:
    """Wins of the heavier less its losses, by prompt."""
    sums: dict[int, int] = {}
    for ballot in winners:
        won = 1 if ballot.choice == "heavier" else -1
        sums[ballot.prompt] = sums.get(ballot.prompt, 0) + won
    return sums


def _holm(raw: Sequence[float]) -> list[float]:
    """p adjusted for being the least, the second least … of several."""
    adjusted = [1.0] * len(raw)
    greatest = 0.0
    for rank, place in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        greatest = max(greatest, min(1.0, raw[place] * (len(raw) - rank)))
        adjusted[place] = greatest
    return adjusted


def _decided_share(ballots: Sequence[Ballot]) -> Interval | None:
    return _shares.share(_values(ballots) != 0.5, _prompts(ballots))


def _values(ballots: Sequence[Ballot]) -> Doubles:
    return np.array([_SCORES[b.choice] for b in ballots], dtype=np.float64)


def _prompts(ballots: Sequence[Ballot]) -> NDArray[np.int64]:
    return np.array([b.prompt for b in ballots], dtype=np.int64)
