"""How far a model's predictions are from those of a reference: the figures of llama-perplexity.

Per scored token, p being the reference and q the model, both over the whole vocabulary:

    KLD = Σ p (ln p − ln q)          nats; zero only where they agree
    Δp  = q(token) − p(token)        of the token that the text really has there
    same top                         both put the same token first

llama-perplexity --kl-divergence computes the same from a file of logits rounded to 16 bits; here
both models run side by side and no file is written. Standard errors take tokens as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.evaluate._estimate import Estimate, estimate, exponential

Doubles = NDArray[np.float64]

KLD_QUANTILES = (0.999, 0.99, 0.95, 0.90, 0.50, 0.10, 0.05, 0.01, 0.001)
DELTA_P_QUANTILES = (0.999, 0.99, 0.95, 0.90, 0.75, 0.50, 0.25, 0.10, 0.05, 0.01, 0.001)


@dataclass(frozen=True)
class Spread:
    """A distribution: mean with standard error, extremes, quantiles (fraction -> value)."""

    mean: float
    stderr: float
    max: float
    min: float
    quantiles: dict[float, float]


@dataclass(frozen=True)
class Divergence:
    """A model against its reference; probabilities are fractions, logarithms natural.

    base            perplexity of the reference
    ln_ratio        ln(PPL / PPL of the reference)
    ratio           PPL / PPL of the reference
    difference      PPL − PPL of the reference
    correlation     of the two models' surprise over the tokens; None where one is constant
    kld, delta_p    distributions over the tokens
    delta_p_rms     root of the mean of Δp²
    same_top        fraction of the tokens
    """

    base: Estimate
    ln_ratio: Estimate
    ratio: Estimate
    difference: Estimate
    correlation: float | None
    kld: Spread
    delta_p: Spread
    delta_p_rms: Estimate
    same_top: Estimate


def divergence(surprise: Doubles, base: Doubles, kld: Doubles, same: Doubles) -> Divergence:
    """From the four columns (n,) of `_rows.Scorer.compare`; n ≥ 2."""
    ppl, base_ppl = exponential(surprise), exponential(base)
    delta_p = np.exp(-surprise) - np.exp(-base)
    return Divergence(
        base=base_ppl,
        ln_ratio=estimate(surprise - base),
        ratio=exponential(surprise - base),
        difference=_difference(ppl, base_ppl, surprise, base),
        correlation=_correlation(surprise, base),
        kld=_spread(kld, KLD_QUANTILES),
        delta_p=_spread(delta_p, DELTA_P_QUANTILES),
        delta_p_rms=_rms(delta_p),
        same_top=_fraction(same),
    )


def _difference(
    ppl: Estimate, base: Estimate, surprise: Doubles, base_surprise: Doubles
) -> Estimate:
    """To first order PPL − PPL' varies as PPL · ln PPL − PPL' · ln PPL'."""
    moves = estimate(ppl.mean * surprise - base.mean * base_surprise)
    return Estimate(ppl.mean - base.mean, moves.stderr)


def _correlation(a: Doubles, b: Doubles) -> float | None:
    if a.std() == 0.0 or b.std() == 0.0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _spread(values: Doubles, fractions: tuple[float, ...]) -> Spread:
    mean = estimate(values)
    quantiles = np.quantile(values, fractions)
    return Spread(
        mean=mean.mean,
        stderr=mean.stderr,
        max=float(values.max()),
        min=float(values.min()),
        quantiles={f: float(q) for f, q in zip(fractions, quantiles, strict=True)},
    )


def _rms(values: Doubles) -> Estimate:
    squares = estimate(values**2)
    root = math.sqrt(squares.mean)
    return Estimate(root, 0.5 * squares.stderr / root if root > 0 else 0.0)


def _fraction(hits: Doubles) -> Estimate:
    p = float(hits.mean())
    return Estimate(p, math.sqrt(p * (1 - p) / (len(hits) - 1)))
