"""Sums over the tokens of one layer: how often, how strongly and to what effect neurons fire.

A neuron's contribution to the output is a_j · W_down[:, j], its energy a_j² · ‖W_down[:, j]‖².
Cross terms between neurons, which may cancel or add up, are left out: energies of neurons do not
sum to the energy of the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.neurons._firing import DEFINITIONS, fired

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

FRACTIONS = (0.5, 0.9, 0.99)  # of the energy
RARE = (0.01, 0.1)  # of the tokens: below, a neuron fires rarely


@dataclass(frozen=True)
class LayerNeurons:
    """The neurons of a layer; arrays are (neurons,), figures of one token averaged over tokens.

    frequency     by definition (`_firing.DEFINITIONS`): the share of tokens it fires for
    magnitude     mean |a|; `rms` the root mean square of a; `largest` the greatest |a|
    energy        its share of the energy summed over tokens: a few with giant activations, the
                  first of a text above all, can outweigh all others
    even_energy   the same with every token counted alike
    carry_token   fraction of a token's energy -> the share of neurons that carries it, of its own
                  strongest
    """

    layer: int
    frequency: Mapping[str, Floats]
    magnitude: Floats
    rms: Floats
    largest: Floats
    energy: Doubles
    even_energy: Doubles
    carry_token: Mapping[float, float]

    @property
    def neurons(self) -> int:
        """How many there are."""
        return len(self.energy)

    def rare(self, definition: str, below: float) -> float:
        """The share of neurons that fire for less than `below` of the tokens."""
        return float((self.frequency[definition] < below).mean())

    def active(self, definition: str) -> float:
        """The share of neurons that fire for a token."""
        return float(self.frequency[definition].mean())

    def carry(self, fraction: float, even: bool = False) -> float:
        """The share of neurons, the strongest first, that carries this fraction of the energy."""
        shares = self.even_energy if even else self.energy
        return float(carriers(shares[None], fraction)[0]) / self.neurons

    def darkest(self) -> Longs:
        """The neurons from the least to the greatest energy, every token counted alike."""
        return np.argsort(self.even_energy, kind="stable")


def carriers(energy: NDArray[np.floating], fraction: float) -> Longs:
    """How many of the largest of each row (rows, n) sum to `fraction` of it; 0 without energy."""
    falling = np.sort(energy, axis=1)[:, ::-1]
    sums = np.cumsum(falling, axis=1)
    wanted = fraction * sums[:, -1:]
    needed = (sums < wanted).sum(axis=1) + 1
    return np.where(sums[:, -1] > 0, needed, 0).astype(np.int64)


class Tally:
    """What `LayerNeurons` is made of, growing with each piece of text."""

    def __init__(self, layer: int, columns: Doubles) -> None:
        """columns: ‖W_down[:, j]‖², (neurons,)."""
        count = len(columns)
        self._layer = layer
        self._columns = columns.astype(np.float32)
        self._tokens = 0
        self._fired = {name: np.zeros(count, np.int64) for name in DEFINITIONS}
        self._sum, self._squares = np.zeros(count), np.zeros(count)
        self._largest = np.zeros(count, np.float32)
        self._energy, self._even = np.zeros(count), np.zeros(count)
        self._carried = dict.fromkeys(FRACTIONS, 0)

    def add(self, activations: Floats) -> None:
        """Count tokens: float32 (tokens, neurons)."""
        sizes = np.abs(activations)
        self._tokens += len(sizes)
        for name, which in zip(self._fired, fired(sizes), strict=True):
            self._fired[name] += np.count_nonzero(which, axis=0)
        squares = np.square(sizes)
        self._sum += sizes.sum(axis=0, dtype=np.float64)
        self._squares += squares.sum(axis=0, dtype=np.float64)
        np.maximum(self._largest, sizes.max(axis=0), out=self._largest)
        energy = squares * self._columns
        self._energy += energy.sum(axis=0, dtype=np.float64)
        whole = energy.sum(axis=1, keepdims=True)
        even = np.divide(energy, whole, out=np.zeros_like(energy), where=whole > 0)
        self._even += even.sum(axis=0, dtype=np.float64)
        for fraction in self._carried:
            self._carried[fraction] += int(carriers(even, fraction).sum())

    def finish(self) -> LayerNeurons:
        """What was counted."""
        tokens, count = self._tokens, len(self._energy)
        return LayerNeurons(
            layer=self._layer,
            frequency={n: (c / tokens).astype(np.float32) for n, c in self._fired.items()},
            magnitude=(self._sum / tokens).astype(np.float32),
            rms=np.sqrt(self._squares / tokens).astype(np.float32),
            largest=self._largest,
            energy=_shares(self._energy),
            even_energy=_shares(self._even),
            carry_token={f: n / (tokens * count) for f, n in self._carried.items()},
        )


def _shares(sums: Doubles) -> Doubles:
    total = sums.sum()
    return sums / total if total > 0 else sums
