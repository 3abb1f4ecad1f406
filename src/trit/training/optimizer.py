"""Muon for the layers' matrices, AdamW for the rest, and the schedules of both.

Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. The momentum of a matrix is
replaced by the nearest matrix whose singular values are about 1, by five steps of a polynomial.
AdamW: Loshchilov & Hutter 2019, with BitNet's betas .9 and .95. The rate falls linearly to zero and
drops once on the way; weight decay ends with the first stage ("BitNet b1.58: training tips", 2024).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from trit.training.config import Training

MOMENTUM = 0.95
BETAS = (0.9, 0.95)
EPS = 1e-8
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steep at 0, within 0.7 … 1.2 near 1
_ITERATIONS = 5


def factor(step: int, training: Training) -> float:
    """What the rates of a step are multiplied by; steps count from 0."""
    warm = min(1.0, (step + 1) / training.warmup) if training.warmup else 1.0
    stage = training.drop if in_second_stage(step, training) else 1.0
    return warm * stage * (1.0 - step / training.steps)


def in_second_stage(step: int, training: Training) -> bool:
    """Whether a step is in the second stage: lower rate, other weight decay."""
    return step >= training.stage * training.steps


def is_ternary(step: int, training: Training) -> bool:
    """Whether weights are ternary in a step; before, they are floats."""
    return step >= training.float_share * training.steps


def rates(
    weights: Mapping[str, Tensor], matrices: Collection[str], training: Training
) -> dict[str, float]:
    """The rate of each weight, before `factor`."""
    return {name: training.matrix_rate if name in matrices else training.rate for name in weights}


def decay(step: int, training: Training) -> float:
    """The weight decay of a step."""
    return training.weight_decay[int(in_second_stage(step, training))]


class Optimizer:
    """Moves weights in place. `state` holds what must outlive a restart, by name.

    Muon moves the matrices named `muon`, AdamW all else; one-dimensional weights never decay.
    """

    def __init__(self, weights: Mapping[str, Tensor], muon: Iterable[str] = ()) -> None:
        self.weights = weights
        self._muon = set(muon)
        self.state = {
            f"{kind}.{name}": torch.zeros_like(weight, requires_grad=False)
            for name, weight in weights.items()
            for kind in (("momentum",) if name in self._muon else ("first", "second"))
        }

    def step(
        self, step: int, rates: Mapping[str, float], factor: float, decay: float, most: float
    ) -> float:
        """Move every weight along its gradient, and forget it; returns the gradient's norm.

        Each moves by its rate times `factor`; gradients are shrunk to a norm of `most` (0: never).
        """
        norm = clip(list(self.weights.values()), most)
        with torch.no_grad():
            for name, weight in self.weights.items():
                assert weight.grad is not None, f"{name} has no gradient"
                rate = factor * rates[name]
                move = self._moved(name, weight.grad, step)
                if weight.ndim > 1:
                    weight.mul_(1.0 - rate * decay)
                weight.add_(move, alpha=-rate)
                weight.grad = None
        return norm

    def _moved(self, name: str, gradient: Tensor, step: int) -> Tensor:
        if name in self._muon:
            momentum = self.state[f"momentum.{name}"].lerp_(gradient, 1 - MOMENTUM)
            rows, cols = gradient.shape
            wide = max(1.0, rows / cols) ** 0.5
            wanted: Tensor = orthogonal(gradient.lerp(momentum, MOMENTUM)) * wide
            return wanted
        first = self.state[f"first.{name}"].lerp_(gradient, 1 - BETAS[0])
        second = self.state[f"second.{name}"].lerp_(gradient.square(), 1 - BETAS[1])
        unbiased = [1 - beta ** (step + 1) for beta in BETAS]
        move: Tensor = (first / unbiased[0]) / ((second / unbiased[1]).sqrt() + EPS)
        return move


def orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ, of any shape and scale."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def clip(weights: list[Tensor], most: float) -> float:
    """Shrink all gradients together to a norm of `most` (0: leave them); the norm there was."""
    grads = [weight.grad for weight in weights if weight.grad is not None]
    norm = float(torch.stack([grad.norm() for grad in grads]).norm())
    if most and norm > most:
        for grad in grads:
            grad.mul_(most / norm)
    return norm
