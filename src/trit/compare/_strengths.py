"""Strengths of several models from their pairs (R. A. Bradley and M. E. Terry 1952), in Elo points.

P(i is preferred to j) = 1 / (1 + 10^((Elo_j − Elo_i) / 400)). A tie is half a win for either, so a
difference of strengths means an expected score, the one that is told beside it; a model of ties
with a parameter of its own (R. R. Davidson 1970) would leave them out of it, and two models that
nearly always tie would look as far apart as their rare winners. With half wins the likelihood is
none, and its curvature says nothing: intervals come from prompts drawn anew.

Half a vote for either side is added to every pair: a model that has won everything has a finite
strength, and small samples are less biased (D. Firth 1993; for a single pair it is the same).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trit.compare._shares import student
from trit.evaluate._interval import Interval

Doubles = NDArray[np.float64]
ELO = 400 / math.log(10)  # points to the unit of a logit
DRAWS = 2000
_HALF = 0.5
_STEPS = 50
_ENOUGH = 1e-9  # of a gradient, in votes


def strengths(scores: Doubles, seed: int) -> list[Interval] | None:
    """Of `scores` (prompts, k, k), what model i got against j on each prompt: the Elo of each less
    that of the first, with 95% intervals from DRAWS samples of prompts; None below two prompts.

    The quantiles are taken further out, as Student's are and for the n in place of n − 1
    (T. Hesterberg 2015): plain ones cover too little where prompts are few.
    """
    count = len(scores)
    if count < 2:
        return None
    found = fit(scores.sum(axis=0)[None])[0]
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)
    samples = fit(np.einsum("dp,pij->dij", drawn, scores))
    outer = student(count - 1) * math.sqrt(count / (count - 1))
    tail = math.erfc(outer / math.sqrt(2)) / 2
    relative = (samples - samples[:, :1]) * ELO
    low, high = np.quantile(relative, [tail, 1 - tail], axis=0)
    own = (found - found[0]) * ELO
    return [Interval(*map(float, each)) for each in zip(own, low, high, strict=True)]


def fit(scores: Doubles) -> Doubles:
    """Logits (n, k), their sum 0, of the scores (n, k, k) of n studies: Newton's steps."""
    count, models, _ = scores.shape
    own = scores + _HALF * (1 - np.eye(models))
    votes = own + own.transpose(0, 2, 1)
    found = np.zeros((count, models))
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(found[:, None, :] - found[:, :, None]))
        slope = (own - votes * expected).sum(axis=2)
        if np.abs(slope).max() < _ENOUGH:
            break
        weight = votes * expected * (1 - expected)
        curve = -weight
        places = np.arange(models)
        curve[:, places, places] += weight.sum(axis=2)
        step = np.linalg.solve(curve + 1 / models, slope[:, :, None])[:, :, 0]
        found += np.clip(step, -1.0, 1.0)  # far from the top a whole step leads beyond it
    return found
