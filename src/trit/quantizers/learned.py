"""Learned rounding: offsets, scales and mins of a layer's matrices, trained on its outputs.

Begun from other encodings (gptq's), each step sends a piece of text through the layer as its bytes
would compute it and moves every offset, scale and min by a small fixed amount against the sign of
its gradient, less with each step (SignRound: Cheng et al. 2023, arXiv:2309.05516). The aim is what
the layer of the *float* model gives for the float model's inputs, while the inputs here are those
that the rounded layers before give: so a layer also learns to undo some of what came before it.

An error is counted against the length of its token's hidden state, which is what the next norm
makes of it; a few tokens that are hundreds of times as long would decide everything else.

Of some pieces that are not trained on the error is looked at, at the beginning too; the best state
seen is kept. So nothing gets worse by that measure, and where nothing helps nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trit.errors import UnsupportedError, UsageError
from trit.files._tensor import Tensor
from trit.machine.processors import default_threads
from trit.plan import Layer, MixtureOfExperts, Plan
from trit.reference import Reference

if TYPE_CHECKING:
    import torch

    from trit.quantizers._trainable import Trainable

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
OnStep = Callable[[int], None]  # steps that are done

# What of a layer is trained, by how much it may travel if every step went the same way: offsets,
# scales and mins in steps of their own grids, d and dmin in shares (docs/log.md).
TRAVEL = {"offsets": 0.04, "scales": 0.2, "mins": 0.2, "m": 0.02, "d": 0.02}
TRAVEL_OF_OFFSET = 0.2  # of q4_1's and q5_1's m, in units of d
LOOKS = 4  # at pieces held out, after the first
HELD_OUT = 8  # of so many pieces one
MOST_HELD_OUT = 4
FEWEST_PIECES = 4


@dataclass(frozen=True)
class Settings:
    """How long and with what seed is trained.

    steps  of one piece of text each
    seed   of the order of pieces
    """

    steps: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """A matrix to be trained: its weights float32 (rows, cols), and the bytes to begin with."""

    weights: Floats
    format_name: str
    packed: Bytes


@dataclass(frozen=True)
class Learned:
    """The best state that was seen.

    data   by name: the bytes of each matrix
    step   after which it was seen; 0: nothing was better than the beginning
    loss   mean squared error of pieces held out, as a share of the squared length of each token
    begun  the same at the beginning
    """

    data: dict[str, Bytes]
    step: int
    loss: float
    begun: float


def require_torch() -> None:
    """UnsupportedError where torch is not installed."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise UnsupportedError(
            "learned rounding needs torch: pip install 'trit[train]'. Without it: --effort balanced"
        )


def require_dense(path: object, plan: Plan) -> None:
    """UnsupportedError, naming `path`, for a model with experts."""
    if any(isinstance(layer.feed_forward, MixtureOfExperts) for layer in plan.layers):
        raise UnsupportedError(
            f"{path}: learned rounding of a mixture of experts is not supported: few tokens go to "
            "each. Take error feedback: --effort balanced"
        )


def require_pieces(count: int) -> None:
    """UsageError for fewer than FEWEST_PIECES of text."""
    if count < FEWEST_PIECES:
        raise UsageError(
            f"the calibration text makes {count} pieces, learned rounding needs at least "
            f"{FEWEST_PIECES}. Give it a longer text: --calibration FILE"
        )


def train(
    plan: Plan,
    layer: Layer,
    tensors: Mapping[str, Tensor],
    starts: Mapping[str, Start],
    inputs: Floats,
    targets: Floats,
    settings: Settings,
    threads: int | None = None,
    on_step: OnStep | None = None,
) -> Learned:
    """Train the matrices of one layer.

    tensors  the float model's, by name; those of the layer are decoded
    starts   the matrices to train, by name, in formats that _trainable.py names
    inputs   float32 (pieces, ctx, width): what the rounded layers before give
    targets  the same shape: what the layer should give
    threads  None: those the process may use. The same number gives the same bytes on one machine
    UsageError for fewer than FEWEST_PIECES.
    """
    require_pieces(len(inputs))
    with _threads(threads or default_threads()):
        task = _Task(plan, layer, tensors, starts, inputs, targets)
        return task.run(settings, on_step or (lambda done: None))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Task:
    """One layer under training."""

    def __init__(
        self,
        plan: Plan,
        layer: Layer,
        tensors: Mapping[str, Tensor],
        starts: Mapping[str, Start],
        inputs: Floats,
        targets: Floats,
    ) -> None:
        import torch

        from trit.quantizers._trainable import Trainable

        self._layer = layer
        self._reference = Reference(plan, tensors)
        self._matrices = {
            name: Trainable(start.weights, start.format_name, start.packed)
            for name, start in starts.items()
        }
        self._inputs, self._targets = inputs, targets
        self._positions = torch.arange(inputs.shape[1])
        every = max(HELD_OUT, -(-len(inputs) // MOST_HELD_OUT))
        self._held = list(range(0, len(inputs), every))
        self._pieces = [piece for piece in range(len(inputs)) if piece not in self._held]

    def run(self, settings: Settings, on_step: OnStep) -> Learned:
        order = self._order(settings)
        begun = loss = self._look()
        best = 0
        data = self._pack()
        every = max(1, settings.steps // LOOKS)
        for step in range(1, settings.steps + 1):
            self._step(next(order), (1 - (step - 1) / settings.steps) * 2 / settings.steps)
            on_step(step)
            if step % every == 0 or step == settings.steps:
                found = self._look()
                if found < loss:
                    loss, best, data = found, step, self._pack()
        return Learned(data, best, loss, begun)

    def _order(self, settings: Settings) -> Iterator[int]:
        """Pieces to train on, without end: all in a random order, then all in another."""
        random = np.random.default_rng(settings.seed)
        while True:
            for at in random.permutation(len(self._pieces)).tolist():
                yield self._pieces[at]

    def _step(self, piece: int, share: float) -> None:
        """Move all parameters by `share` of their travel."""
        values = {name: matrix.values() for name, matrix in self._matrices.items()}
        leaves = {name: each.detach().requires_grad_() for name, each in values.items()}
        self._reference.put(leaves)
        self._loss(piece).backward()  # type: ignore[no-untyped-call]
        for name, matrix in self._matrices.items():
            values[name].backward(leaves[name].grad)  # type: ignore[no-untyped-call]
            _move(matrix, share)

    def _look(self) -> float:
        """The mean loss of the pieces held out."""
        import torch

        with torch.no_grad():
            self._reference.put({name: each.values() for name, each in self._matrices.items()})
            return sum(self._loss(piece).item() for piece in self._held) / len(self._held)

    def _loss(self, piece: int) -> torch.Tensor:
        import torch

        inputs, targets = torch.tensor(self._inputs[piece]), torch.tensor(self._targets[piece])
        found = self._reference.layer(self._layer, inputs, self._positions)
        length = targets.square().sum(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        return ((found - targets).square().sum(dim=-1) / length).mean()

    def _pack(self) -> dict[str, Bytes]:
        return {name: matrix.pack() for name, matrix in self._matrices.items()}


def _move(matrix: Trainable, share: float) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in matrix.parameters.items():
            travel = TRAVEL[name]
            if name == "m" and "mins" not in matrix.parameters:
                travel = TRAVEL_OF_OFFSET
            assert parameter.grad is not None, f"{name} has no gradient"
            parameter.sub_(parameter.grad.sign(), alpha=share * travel)
            parameter.grad = None
    matrix.confine()
