"""Voters who prefer what they are told to: votes with a known truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from trit.compare.study import Ballot


def ballots(
    random: np.random.Generator,
    logits: Sequence[float],
    prompts: int,
    voters: int = 1,
    tie: float = 0.0,
    spread: float = 0.0,
    belief: float = 0.5,
) -> list[Ballot]:
    """A vote of each voter on each prompt and pair of models.

    logits   strengths of the models; `spread`: of the difference from prompt to prompt
    tie      chance of a tie, whatever the answers
    belief   chance that the preferred answer is taken for the heavier file's
    """
    made = []
    for prompt in range(prompts):
        shift = random.standard_normal(len(logits)) * spread / math.sqrt(2)
        for (i, a), (j, b) in itertools.combinations(enumerate(logits), 2):
            chance = 1 / (1 + math.exp(b + shift[j] - a - shift[i]))
            for voter in range(voters):
                won = "heavier" if random.random() < chance else "lighter"
                other = "lighter" if won == "heavier" else "heavier"
                believed = won if random.random() < belief else other
                choice = "tie" if random.random() < tie else won
                first = None if choice == "tie" else bool(random.random() < 0.5)
                made.append(Ballot(prompt, str(voter), i, j, choice, first, believed, 1.0))
    return made


def expected(difference: float, spread: float = 0.0) -> float:
    """The share of wins that a difference of strengths means, over prompts."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    chances = 1 / (1 + np.exp(-(difference + spread * nodes)))
    return float((weights * chances).sum() / weights.sum())
