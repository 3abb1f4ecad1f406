"""A packed matrix that gradients can move: what a format decodes, straight through its roundings.

An encoding of a matrix is opened into what its format stores: codes, scales, mins. Each becomes a
real number beside the stored one, zero at first, and gradient steps move those numbers; rounding is
a part of the forward pass, so that what is trained on is, to the bit, what a reader will decode,
and `pack` only writes it down. The backward pass takes roundings for the identity within a format's
range and for constants outside it (straight-through: Bengio et al. 2013, arXiv:1308.3432; scales as
in LSQ: Esser et al. 2020, arXiv:1902.08153).

    value  = s · q + o                                     per weight
    q      = nearest level of (w - o) / s, or of p + v
    s      = fp16(d) · scale,  o = -fp16(m) · min or fp16(m) or 0       per group

with integer scales and mins where the format has them. Either w is trained (distillation), and
codes follow the scales; or v, from -1/2 to 1/2, which chooses between the two levels around the
place p = (w - o) / s as the encoding had it (learned rounding: Nagel et al. 2020, arXiv:2004.10568;
SignRound: Cheng et al. 2023, arXiv:2309.05516). Then scales move on their own: what begins with
error feedback is full of weights at the edge, whose codes any step of a scale would change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trit import formats
from trit.errors import UnsupportedError
from trit.formats import Unpacked
from trit.quantizers._levels import Levels

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

TRAINABLE = frozenset(
    {
        *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
        *("iq4_nl", "iq4_xs"),
    }
)
MOST_OFFSET = 0.5  # of v, in steps between levels: either neighbour of w, no other
MOST_SHARE = 0.5  # by which d and dmin may differ from where they began
_WITHIN = 0.98  # where w begins at most, of the way from its level to the middle between levels
_LARGEST = 65504.0  # of fp16


class Trainable:
    """A matrix in one of the formats TRAINABLE, to be trained.

    `parameters` are float32 leaves that want gradients, all zero at first but the weights:

        weights  (rows, cols)       or:
        offsets  (rows, cols)       v, in steps between levels
        d        (blocks,)          the block scale's change, as a share of it
        m        (blocks,)          the same of a block's scale of mins; of an offset (q4_1, q5_1):
                                    its change in units of d
        scales   (blocks, groups)   the change of the integers, in their own steps
        mins     (blocks, groups)   likewise

    Those that a format has not are not there. Call `confine` after each step.
    """

    def __init__(
        self,
        weights: Floats,
        format_name: str,
        packed: Bytes,
        train: Literal["offsets", "weights"] = "offsets",
        device: torch.device | str = "cpu",
    ) -> None:
        """Begin at an encoding `packed` uint8 (rows, row_bytes) of weights (rows, cols) float32.

        The first `values` are those of `packed`. Where its codes are not the nearest ones (error
        feedback), the weights that are rounded begin at the nearest that give these codes.
        UnsupportedError for another format, or rows that it does not divide.
        """
        format = formats.get(format_name)
        if format.name not in TRAINABLE:
            raise UnsupportedError(
                f"{format.name} cannot be trained. These can: {', '.join(sorted(TRAINABLE))}."
            )
        assert packed.shape == (len(weights), format.row_bytes(weights.shape[1]))
        assert format.unpack is not None
        self.format = format
        self.shape = weights.shape
        unpacked = format.unpack(packed.reshape(-1, format.block_bytes))
        self._levels = Levels.of(format, device)
        self._stored = _Stored.of(unpacked, device)
        integers = {"codes": unpacked.codes, "scales": unpacked.scales, "mins": unpacked.mins}
        self._kinds: dict[str, Any] = {
            name: each.dtype for name, each in integers.items() if each is not None
        }
        groups = format.block_weights // format.group
        self._groups = (len(unpacked.d), groups, format.group)

        self.parameters: dict[str, Tensor] = self._zeros()
        scale, shift = self._scale_and_shift()
        wanted = torch.tensor(weights, dtype=torch.float32, device=device).view(self._groups)
        codes = torch.tensor(unpacked.codes, device=device).view(self._groups)
        steps = _steps(wanted, scale, shift)
        place = self._levels.brought_to(self._levels.values_of(codes), steps, _WITHIN)
        self._place: Tensor | None = None
        if train == "weights":
            self.parameters["weights"] = _weights(place, scale, shift).view(self.shape)
        else:
            self.parameters["offsets"] = torch.zeros(self.shape, device=device)
            self._place = place
        for each in self.parameters.values():
            each.requires_grad_()

    def values(self, known: Tensor | None = None) -> Tensor:
        """What the format decodes, float32 (rows, cols); differentiable in `parameters`.

        `known`: the same numbers, from an earlier call, where weights are trained and gradients are
        all that is wanted.
        """
        scale, shift = self._scale_and_shift()
        values: Tensor
        if self._place is None:
            weights = self.parameters["weights"].view(self._groups)
            given = None if known is None else known.view(self._groups)
            values = _FromWeights.apply(  # type: ignore[no-untyped-call]
                weights, scale, shift, self._levels, given
            )
        else:
            offsets = self.parameters["offsets"].view(self._groups)
            values = _FromOffsets.apply(  # type: ignore[no-untyped-call]
                offsets, scale, shift, self._place, self._levels
            )
        return values.view(self.shape)

    @torch.no_grad()
    def confine(self) -> None:
        """Bring parameters back, in place, to where they mean something."""
        moved = self.parameters
        moved["d"].clamp_(-MOST_SHARE, MOST_SHARE)
        if "offsets" in moved:
            moved["offsets"].clamp_(-MOST_OFFSET, MOST_OFFSET)
        if "mins" in moved:
            moved["m"].clamp_(-MOST_SHARE, MOST_SHARE)
        for name, (low, high) in self._levels.integers.items():
            started = self._stored.integers[name]
            moved[name].copy_(moved[name].clamp(low - started, high - started))

    @torch.no_grad()
    def pack(self) -> Bytes:
        """Blocks that decode to what `values` now gives, to the bit: uint8 (rows, row_bytes)."""
        d, m, integers = self._numbers()
        levels = self._levels.nearest(self._now())
        packed = self._packed(d, m, integers, self._levels.codes_of(levels))
        return packed.reshape(self.shape[0], -1)

    def _packed(
        self, d: Tensor, m: Tensor | None, integers: dict[str, Tensor], codes: Tensor
    ) -> Bytes:
        assert self.format.pack is not None
        whole = {
            name: each.cpu().numpy().astype(self._kinds[name])
            for name, each in {"codes": codes.view(len(d), -1), **integers}.items()
        }
        return self.format.pack(
            Unpacked(
                codes=whole["codes"],
                d=d.half().cpu().numpy(),
                m=None if m is None else m.half().cpu().numpy(),
                scales=whole.get("scales"),
                mins=whole.get("mins"),
            )
        )

    def _zeros(self) -> dict[str, Tensor]:
        stored = self._stored
        zeros = {"d": torch.zeros_like(stored.d)}
        if stored.m is not None:
            zeros["m"] = torch.zeros_like(stored.m)
        return zeros | {name: torch.zeros_like(each) for name, each in stored.integers.items()}

    def _now(self) -> Tensor:
        """What is rounded to levels, (blocks, groups, group)."""
        if self._place is None:
            weights = self.parameters["weights"].view(self._groups)
            return _steps(weights, *self._scale_and_shift())
        return _moved(self._place, self.parameters["offsets"].view(self._groups), self._levels)

    def _numbers(self) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """d, m and the integers as stored: float32, but on fp16's grid or whole."""
        stored, moved = self._stored, self.parameters
        d = _half(stored.d * (1 + moved["d"]), stored.d)
        m = None
        if stored.m is not None:
            step = stored.m if "mins" in moved else stored.d
            m = _half(stored.m + step * moved["m"], stored.m)
        integers = {
            name: _whole((stored.integers[name] + moved[name]).clamp(low, high))
            for name, (low, high) in self._levels.integers.items()
        }
        return d, m, integers

    def _scale_and_shift(self) -> tuple[Tensor, Tensor | None]:
        """s and o of each group, (blocks, groups): multiplied in the order of formats/_format.py"""
        d, m, integers = self._numbers()
        scale = d[:, None]
        if "scales" in integers:
            scale = scale * integers["scales"] * self.format.unit
        if m is None:
            return scale, None
        return scale, -(m[:, None] * integers["mins"]) if "mins" in integers else m[:, None]


@dataclass(frozen=True, eq=False)
class _Stored:
    """What an encoding had: d and m float32 (blocks,), the integers float32 (blocks, groups)."""

    d: Tensor
    m: Tensor | None
    integers: dict[str, Tensor]

    @classmethod
    def of(cls, unpacked: Unpacked, device: torch.device | str) -> _Stored:
        def floats(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array.astype(np.float32)).to(device)

        integers = (("scales", unpacked.scales), ("mins", unpacked.mins))
        return cls(
            floats(unpacked.d),
            None if unpacked.m is None else floats(unpacked.m),
            {name: floats(each) for name, each in integers if each is not None},
        )


class _FromWeights(torch.autograd.Function):
    """s · q + o, q nearest to (w - o) / s. What the backward pass needs is computed again: nothing
    as large as the matrix is kept but the matrix."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        levels: Levels,
        known: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(weights, scale, shift)
        ctx.levels = levels
        if known is not None:
            return known.view_as(known)
        return _values(levels.nearest(_steps(weights, scale, shift)), scale, shift)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        weights, scale, shift = ctx.saved_tensors
        levels, gradient = ctx.levels, grads[0]
        steps = _steps(weights, scale, shift)
        through = gradient * (levels.reached(steps) & (scale != 0)[:, :, None])
        of_scale = of_shift = None
        if ctx.needs_input_grad[1]:
            of_scale = (gradient * levels.nearest(steps) - through * steps).sum(dim=2)
        if ctx.needs_input_grad[2]:
            of_shift = (gradient - through).sum(dim=2)
        return through if ctx.needs_input_grad[0] else None, of_scale, of_shift, None, None


class _FromOffsets(torch.autograd.Function):
    """s · q + o, q nearest to p + v: a step of a scale leaves all codes alone."""

    @staticmethod
    def forward(
        ctx: Any,
        offsets: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        place: Tensor,
        levels: Levels,
    ) -> Tensor:
        ctx.save_for_backward(offsets, scale, place)
        ctx.levels = levels
        return _values(levels.nearest(_moved(place, offsets, levels)), scale, shift)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        offsets, scale, place = ctx.saved_tensors
        levels, gradient = ctx.levels, grads[0]
        steps = _moved(place, offsets, levels)
        of_offsets = of_scale = of_shift = None
        if ctx.needs_input_grad[0]:
            of_offsets = gradient * levels.reached(steps) * (scale * levels.step)[:, :, None]
        if ctx.needs_input_grad[1]:
            of_scale = (gradient * levels.nearest(steps)).sum(dim=2)
        if ctx.needs_input_grad[2]:
            of_shift = gradient.sum(dim=2)
        return of_offsets, of_scale, of_shift, None, None


def _moved(place: Tensor, offsets: Tensor, levels: Levels) -> Tensor:
    """p + v, in units of levels."""
    return torch.add(place, offsets, alpha=levels.step)


def _values(levels: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """s · q + o in place of q, groups (blocks, groups, group)."""
    levels *= scale[:, :, None]
    return levels if shift is None else levels.add_(shift[:, :, None])


def _steps(weights: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """(w - o) / s for groups (blocks, groups, group); where s is 0, nothing is divided."""
    shifted = weights if shift is None else weights - shift[:, :, None]
    return shifted / torch.where(scale == 0, 1.0, scale)[:, :, None]


def _weights(steps: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """The inverse of `_steps`."""
    weights = steps * torch.where(scale == 0, 1.0, scale)[:, :, None]
    return weights if shift is None else weights + shift[:, :, None]


class _Straight(torch.autograd.Function):
    """x rounded to `rounded`, as if it were not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


def _straight(x: Tensor, rounded: Tensor) -> Tensor:
    found: Tensor = _Straight.apply(x, rounded)  # type: ignore[no-untyped-call]
    return found


def _half(x: Tensor, stored: Tensor) -> Tensor:
    """x rounded to fp16, beyond its range the largest; a zero that is stored keeps its sign."""
    x = x.clamp(-_LARGEST, _LARGEST)
    rounded = torch.where(x == stored, stored, x.half().float())
    return _straight(x, rounded)


def _whole(x: Tensor) -> Tensor:
    """x rounded to whole numbers, with no negative zero."""
    return _straight(x, x.round() + 0.0)
