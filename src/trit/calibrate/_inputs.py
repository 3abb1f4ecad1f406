"""What the linears of a layer are multiplied with: its energy per column, and its Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.engine import GRAM_BLOCK, Engine
from trit.plan import GatedFeedForward, Layer, MixtureOfExperts, PlainFeedForward

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

# Rows that a Gram matrix grows by at a time: it is read and written once for all of them.
GRAM_ROWS = 1024
GRAM_BYTES = 256 << 20  # of rows that wait, of one input; experts each have some of their own


@dataclass(frozen=True)
class Shared:
    """Weights of a layer that share an input, in running order.

    matrices   1, or the number of experts, each of which sees rows of its own
    cols       columns of the input
    """

    names: tuple[str, ...]
    matrices: int
    cols: int


@dataclass(frozen=True)
class Inputs:
    """Statistics of an input that some weights share.

    names    the weights, in running order
    sums     float64 (matrices, cols): Σ x² of each column
    counts   int64 (matrices,): how many x; 0 for an expert that no token went to
    gram     float32 (matrices, cols, cols): Σ x xᵀ, symmetric; None where it was not asked for
    """

    names: tuple[str, ...]
    sums: Doubles
    counts: Longs
    gram: Floats | None = None

    @property
    def means(self) -> Floats:
        """Mean x² (matrices, cols), what quantizers take as importance.

        1 everywhere for an expert that no token went to: its columns then count alike.
        """
        seen = self.counts[:, None] > 0
        means = np.divide(self.sums, self.counts[:, None], out=np.ones_like(self.sums), where=seen)
        return means.astype(np.float32)

    @property
    def unseen(self) -> list[int]:
        """The experts that no token went to."""
        return np.flatnonzero(self.counts == 0).tolist() if len(self.counts) > 1 else []

    @property
    def silent(self) -> int:
        """Columns that were 0 in every x, of the experts that saw any."""
        return int((self.sums[self.counts > 0] == 0).sum())


def shared(layer: Layer) -> list[Shared]:
    """The different inputs of a layer's linears."""
    return list(_shared(layer))


def _shared(layer: Layer) -> Iterator[Shared]:
    mixer, part = layer.mixer, layer.feed_forward
    # A fused matrix is one weight, whatever the number of its views.
    projections = tuple(dict.fromkeys(each.weight for each in (mixer.q, mixer.k, mixer.v)))
    yield Shared(projections, 1, mixer.q.cols)
    yield Shared((mixer.output.weight,), 1, mixer.output.cols)
    if not isinstance(part, MixtureOfExperts):
        yield from _dense(part)
        return
    before = [part.router.weight]
    after: list[Shared] = []
    if part.shared is not None:
        if part.shared.gate is not None:
            before.append(part.shared.gate.weight)
        first, *after = _dense(part.shared.part)
        before += first.names
    yield Shared(tuple(before), 1, part.router.cols)
    yield Shared((part.gate.weight, part.up.weight), part.gate.experts, part.gate.cols)
    yield Shared((part.down.weight,), part.down.experts, part.down.cols)
    yield from after


def _dense(part: GatedFeedForward | PlainFeedForward) -> Iterator[Shared]:
    gate = (part.gate.weight,) if isinstance(part, GatedFeedForward) else ()
    # Gate and up may be slices of one matrix.
    yield Shared(tuple(dict.fromkeys((*gate, part.up.weight))), 1, part.up.cols)
    yield Shared((part.down.weight,), 1, part.down.cols)


def gram_bytes(layer: Layer) -> int:
    """Memory of the Gram matrices of a layer, with the rows that wait to be added."""
    total = 0
    for each in shared(layer):
        rows = each.matrices * each.cols * _waiting_rows(each)
        total += 4 * (each.matrices * each.cols**2 + 2 * rows)
    return total


def _waiting_rows(inputs: Shared) -> int:
    fitting = GRAM_BYTES // (4 * inputs.cols * inputs.matrices)
    return max(1, min(GRAM_ROWS, fitting))


class Collector:
    """Sums the rows of one shared input, in the order in which they come.

    name   of the weight whose inputs are asked for
    sums   float64 (matrices, cols), to which the engine adds the squares
    Neither the number of threads nor the size of the pieces changes a bit of what is summed.
    """

    def __init__(self, inputs: Shared, gram: bool, engine: Engine) -> None:
        self.inputs = inputs
        self.name = inputs.names[0]
        self.sums = np.zeros((inputs.matrices, inputs.cols))
        self._counts = np.zeros(inputs.matrices, np.int64)
        shape = (inputs.matrices if gram else 0, inputs.cols, inputs.cols)
        self._gram = np.zeros(shape, np.float32)
        self._grams = [_Gram(inputs, each, engine) for each in self._gram]

    def add(self, rows: int, x: Floats | None, experts: Ints | None) -> None:
        """Count `rows` rows, or those of each expert, (n, top_k); add x to the Gram matrices.

        x: (n, cols); of a stack (n, top_k, cols), each for the expert of that place.
        """
        groups = experts.reshape(-1) if experts is not None and len(self._counts) > 1 else None
        if groups is None:
            self._counts += rows
        else:
            self._counts += np.bincount(groups, minlength=len(self._counts))
        for number, gram in enumerate(self._grams):
            assert x is not None
            flat = x.reshape(-1, x.shape[-1])
            gram.add(flat if groups is None else flat[groups == number])

    def finish(self) -> Inputs:
        """What was summed."""
        for each in self._grams:
            each.finish()
        gram = self._gram if self._grams else None
        return Inputs(self.inputs.names, self.sums, self._counts, gram)


class _Gram:
    """One Gram matrix, grown by a fixed number of rows at a time."""

    def __init__(self, inputs: Shared, into: Floats, engine: Engine) -> None:
        self._engine = engine
        self._sum = into
        self._rows = np.empty((_waiting_rows(inputs), inputs.cols), np.float32)
        self._waiting = 0

    def add(self, rows: Floats) -> None:
        while len(rows):
            count = min(len(rows), len(self._rows) - self._waiting)
            self._rows[self._waiting : self._waiting + count] = rows[:count]
            self._waiting += count
            rows = rows[count:]
            if self._waiting == len(self._rows):
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._engine.add_gram(self._rows[: self._waiting], self._sum)
        self._waiting = 0

    def finish(self) -> None:
        """Add the rows that wait, and fill the lower half."""
        self._flush()
        step = GRAM_BLOCK
        for first in range(0, len(self._sum), step):  # the engine fills the upper part
            block = slice(first, first + step)
            self._sum[first + step :, block] = self._sum[block, first + step :].T
