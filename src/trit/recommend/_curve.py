"""What a type loses where it was not measured on the model itself: measured on another.

`curves.toml` holds mean KL divergences of trit's own files to their F16 source, by type and bits
per weight, each with where it is from. Between two points ln KLD is taken as straight in the bits;
above the last one the line goes on, down to what int8 activations cost; below the first it goes on
as steep as it is on the whole, up to a guess at random.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("curves.toml")
MOST = math.log(50_000)  # nats: nothing is further off than a guess among all tokens
NEAR = 0.4  # bits: a type is the same thing in two models only if it takes about as many
KINSHIP = math.log(4)  # a curve of the same architecture counts as nearer in size by this factor


@dataclass(frozen=True)
class Point:
    """A file that was measured: its type, bits per weight, mean KLD in nats per token."""

    type: str
    bits: float
    kld: float


@dataclass(frozen=True)
class Curve:
    """One model's points, by ascending bits, and where they are from.

    floor   what the rounding of activations to int8 costs it, whatever the weights
    """

    model: str
    arch: str
    weights: int
    source: str
    floor: float
    points: tuple[Point, ...]

    def kld(self, type: str, bits: float) -> float:
        """Nats that a file of this type and so many bits loses, if it were of this model."""
        if bits >= 16:
            return 0.0
        for point in self.points:
            if point.type == type and abs(point.bits - bits) < NEAR:
                return point.kld
        line = self._line()
        above = next((i for i, p in enumerate(line) if p.bits >= bits), len(line))
        above = min(max(above, 1), len(line) - 1)
        low, high = line[above - 1], line[above]
        if bits < low.bits:
            high = line[-1]
        slope = math.log(high.kld / low.kld) / (high.bits - low.bits)
        return min(MOST, max(self.floor, low.kld * math.exp(slope * (bits - low.bits))))

    def _line(self) -> list[Point]:
        """The points that none of fewer bits is better than."""
        line: list[Point] = []
        for point in self.points:
            if not line or point.kld < line[-1].kld:
                line.append(point)
        return line

    def reaches(self, bits: float) -> bool:
        """Whether that lies between its points."""
        return self.points[0].bits - NEAR < bits < self.points[-1].bits + NEAR


@cache
def curves() -> tuple[Curve, ...]:
    """All that are known."""
    made = []
    for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["curve"]:
        points = [Point(p["type"], p["bits"], p["kld"]) for p in row["points"]]
        points.sort(key=lambda point: point.bits)
        named = (row["model"], row["arch"], row["weights"], row["source"], row["floor"])
        made.append(Curve(*named, tuple(points)))
    return tuple(made)


def curve_for(arch: str, weights: int) -> Curve:
    """The curve of the model nearest in size, those of the same architecture first."""

    def distance(curve: Curve) -> float:
        apart = abs(math.log(curve.weights / weights))
        return apart - KINSHIP if curve.arch == arch else apart

    return min(curves(), key=distance)
