"""A measured mean with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    mean: float
    stderr: float


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean of samples (n,) and its standard error, taking them as independent; 0 for n = 1."""
    n = len(values)
    spread = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Estimate(float(values.mean()), spread)


def exponential(values: NDArray[np.float64]) -> Estimate:
    """e to the mean of samples (n,), with its standard error to first order."""
    log = estimate(values)
    value = math.exp(log.mean)
    return Estimate(value, value * log.stderr)
