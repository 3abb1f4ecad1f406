"""What the codes of a format can mean, for gradients: the nearest level, reach, ranges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trit.formats import Format


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of a code, and the ranges of the integers beside the codes.

    table     float32, in rising order; None where all whole numbers from lowest to highest are
    integers  `scales`, `mins` where there are any -> lowest, highest
    """

    lowest: float
    highest: float
    table: Tensor | None
    integers: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, format: Format, device: torch.device | str) -> Levels:
        """Ranges are what blocks of the most extreme bytes unpack to."""
        extremes = np.array([0x00, 0x7F, 0x80, 0xFF], dtype=np.uint8)
        assert format.unpack is not None
        found = format.unpack(np.repeat(extremes[:, None], format.block_bytes, axis=1))
        integers = {
            name: (int(each.min()), int(each.max()))
            for name, each in (("scales", found.scales), ("mins", found.mins))
            if each is not None
        }
        if format.levels is None:
            return cls(float(found.codes.min()), float(found.codes.max()), None, integers)
        table = torch.tensor(format.levels, dtype=torch.float32, device=device)
        assert torch.equal(table, table.round()), f"{format.name} has levels that are not whole"
        return cls(float(table[0]), float(table[-1]), table, integers)

    @cached_property
    def _halves(self) -> Tensor:
        """The level nearest to each half and whole number from lowest to highest, and so to all
        above the one before it, since levels are whole."""
        assert self.table is not None
        numbers = torch.arange(2 * self.lowest, 2 * self.highest + 1, device=self.table.device) / 2
        return self.table[torch.bucketize(numbers, (self.table[1:] + self.table[:-1]) / 2)]

    @property
    def step(self) -> float:
        """Between levels, on average."""
        return 1.0 if self.table is None else (self.highest - self.lowest) / (len(self.table) - 1)

    def nearest(self, steps: Tensor) -> Tensor:
        """The level nearest to each number; no negative zero."""
        if self.table is None:
            return steps.round().clamp_(self.lowest, self.highest).add_(0.0)
        # An eighth of what torch.bucketize takes. What is no number becomes a level all the same.
        at = (2 * steps).ceil_().clamp_(2 * self.lowest, 2 * self.highest).sub_(2 * self.lowest)
        places = at.to(torch.int32).clamp_(min=0).view(-1)
        return torch.index_select(self._halves, 0, places).view(steps.shape)

    def reached(self, steps: Tensor) -> Tensor:
        """Whether rounding alone leads from each number to a level, without clamping."""
        half = self.step / 2
        return (steps >= self.lowest - half) & (steps <= self.highest + half)

    def brought_to(self, values: Tensor, steps: Tensor, share: float) -> Tensor:
        """Steps, brought to within `share` of the way from each level in `values` to the middle
        between it and the next; beyond the outermost levels all are."""
        if self.table is None:
            least, most = values - share / 2, values + share / 2
        else:
            half = torch.nn.functional.pad(self.table.diff() / 2, (1, 1))
            at = self.codes_of(values)
            least, most = values - share * half[at], values + share * half[at + 1]
        least = least.masked_fill(values <= self.lowest, -torch.inf)
        return steps.clamp(least, most.masked_fill(values >= self.highest, torch.inf))

    def values_of(self, codes: Tensor) -> Tensor:
        """The levels, float32, that stored codes mean."""
        return codes.float() if self.table is None else self.table[codes.long()]

    def codes_of(self, values: Tensor) -> Tensor:
        """The inverse of `values_of`."""
        return values if self.table is None else torch.bucketize(values, self.table)
