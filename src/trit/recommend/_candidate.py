"""A file that could be taken: its memory, its speed, and what it loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trit.estimate import Option

TRAINED = "trained so"  # a ternary model, of which no other exists


@dataclass(frozen=True)
class Candidate:
    """A file that is there, or one that could be made.

    label, type  what to call it, and the mix that it is
    path         None: to be made
    option       its memory and speed
    kld, basis   nats per token, and how they are known: its "card", the "curve" of a model that
                 was measured (prolonged beyond its points), "floats", TRAINED
    measured     on this very file, or floats that lose nothing
    fits         with HEADROOM
    beaten_by    what fits, loses less and is faster; None where nothing does
    """

    label: str
    type: str
    path: str | None
    option: Option
    kld: float
    basis: str
    measured: bool
    fits: bool
    beaten_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "path": self.path,
            **self.option.to_dict(),
            "kld": self.kld,
            "basis": self.basis,
            "measured": self.measured,
            "fits_with_headroom": self.fits,
            "beaten_by": self.beaten_by,
        }


def beats(one: Candidate, other: Candidate) -> bool:
    """Whether the one loses less and is faster; without a bandwidth the smaller is faster."""
    return one.kld < other.kld and speed(one) > speed(other)


def speed(one: Candidate) -> float:
    """What candidates are compared by: tokens a second, or else how few bytes there are."""
    known = one.option.tokens_per_second
    return -float(one.option.needs.weights) if known is None else known
