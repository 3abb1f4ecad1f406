"""Simulated voters: do the intervals and tests of `trit compare` hold what they promise?

    python benchmarks/blind_votes.py [--studies 1000] [--json]

Of each setting so many studies are drawn, and counted is how often the 95% intervals of score,
decided share and Bradley-Terry strength hold the truth, and how often the tests say "told apart".
A prompt's own preference is normal around the true one on the scale of logits (`spread`), so
several voters on a prompt agree more than by chance. No model is run.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trit.compare import _shares, _signs, _strengths
from trit.evaluate._interval import Interval

BOOTSTRAPS = 10  # of so many studies one: 2,000 fits are dear


@dataclass(frozen=True)
class Setting:
    """prompts × voters votes; `share` of decided ones for the heavier at the middle prompt."""

    prompts: int
    voters: int
    share: float
    tie: float
    spread: float


@dataclass(frozen=True)
class Found:
    """Shares of studies, and the mean width of the score's interval."""

    score: float
    decided: float
    strength: float
    width: float
    told_fixed: float
    told_always: float


SETTINGS = [
    Setting(prompts, voters, share, tie, spread)
    for prompts, voters, spread in ((20, 1, 0), (40, 1, 1), (100, 1, 1), (10, 3, 1), (20, 5, 2),
                                    (40, 3, 0))
    for share, tie in ((0.5, 0.3), (0.6, 0.0), (0.7, 0.3), (0.9, 0.5))
]  # fmt: skip


def simulate(setting: Setting, studies: int, random: np.random.Generator) -> Found:
    """Draw the studies of a setting."""
    logit = math.log(setting.share / (1 - setting.share))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    decided = float((weights / (1 + np.exp(-logit - setting.spread * nodes))).sum() / weights.sum())
    score = setting.tie / 2 + (1 - setting.tie) * decided
    elo = -_strengths.ELO * math.log(score / (1 - score))
    prompts = np.repeat(np.arange(setting.prompts), setting.voters)
    hits, width, strengths = np.zeros(4), 0.0, []
    for number in range(studies):
        values = _votes(setting, logit, prompts, random)
        wins, where = values[values != 0.5] == 1.0, prompts[values != 0.5]
        own = _shares.score(values, prompts)
        assert own is not None
        sums = np.bincount(where, 2 * wins - 1, setting.prompts).astype(int).tolist()
        firsts = [bool(wins[where == prompt][0]) for prompt in np.unique(where)]
        hits += (
            _holds(own, score),
            _holds(_shares.share(wins, where), decided),
            _signs.sign_flip(sums) < _signs.ALPHA,
            _signs.always(firsts) < _signs.ALPHA,
        )
        width += own.high - own.low
        if number % BOOTSTRAPS == 0:
            found = _strengths.strengths(_scores(values, prompts, setting.prompts), number)
            strengths.append(found is not None and _holds(found[1], elo))
    shares = (hits / studies).tolist()
    return Found(*shares[:2], float(np.mean(strengths)), width / studies, *shares[2:])


def _votes(
    setting: Setting, logit: float, prompts: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    own = logit + setting.spread * random.standard_normal(setting.prompts)
    values = (random.random(len(prompts)) < (1 / (1 + np.exp(-own)))[prompts]).astype(float)
    values[random.random(len(prompts)) < setting.tie] = 0.5
    return values


def _scores(
    values: NDArray[np.float64], prompts: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    scores = np.zeros((count, 2, 2))
    scores[:, 0, 1] = np.bincount(prompts, values, count)
    scores[:, 1, 0] = np.bincount(prompts, 1 - values, count)
    return scores


def _holds(interval: Interval | None, truth: float) -> bool:
    """An interval that there is none of says nothing wrong."""
    return interval is None or interval.low <= truth <= interval.high


def peeking(studies: int, random: np.random.Generator) -> tuple[float, float]:
    """Shares of studies without a difference in which a test that is looked at after each of the
    votes 10 to 120 says that there is one: the normal sign test, and the one made for it."""
    fixed = always = 0
    for _ in range(studies):
        votes = random.random(120) < 0.5
        sums = np.cumsum(2 * votes - 1)
        fixed += bool((np.abs(sums) > 1.96 * np.sqrt(np.arange(1, 121)))[9:].any())
        always += _signs.always(votes.tolist()) < _signs.ALPHA
    return fixed / studies, always / studies


def needed(share: float) -> tuple[int, int]:
    """Decided votes, each on a prompt of its own, that settle a true share with a chance of 80%:
    for the sign test from there on (its power goes in steps), and for looking at any time."""
    always = _signs.more_votes(0, 0, share)
    assert always is not None
    enough = always
    while _power(enough - 1, share) >= _signs.POWER:
        enough -= 1
    return enough, always


def _power(count: int, share: float) -> float:
    """Of the two-sided sign test."""
    even, chances = _signs._binomial(count, 0.5), _signs._binomial(count, share)
    tails = np.cumsum(even)
    lost = np.flatnonzero(2 * tails < _signs.ALPHA)  # so few wins, or as few losses
    return float(chances[lost].sum() + chances[::-1][lost].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    random, rows = np.random.default_rng(asked.seed), []
    for setting in SETTINGS:
        found = simulate(setting, asked.studies, random)
        rows.append(asdict(setting) | asdict(found))
        if not asked.json:
            columns = (f"{name} {value:g}" for name, value in asdict(setting).items())
            figures = (f"{name} {value:.3f}" for name, value in asdict(found).items())
            print(", ".join(columns), "->", ", ".join(figures), flush=True)
    peeked = peeking(2 * asked.studies, np.random.default_rng(6))
    shares = {share: needed(share) for share in (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)}
    if asked.json:
        print(json.dumps({"settings": rows, "peeking": peeked, "needed": shares}, indent=2))
    else:
        print("deceived where looked at after every vote (fixed, always):", peeked)
        print("decided votes needed (fixed, always):", shares)


if __name__ == "__main__":
    main()
