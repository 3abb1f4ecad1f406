"""A recommendation in three lines, for who wants no table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trit.recommend._candidate import TRAINED

if TYPE_CHECKING:
    from trit.estimate import Machine
    from trit.recommend._candidate import Candidate


def described(
    model: str,
    source: str,
    chosen: Candidate | None,
    candidates: Sequence[Candidate],
    where: Machine,
    ctx: int,
    readable: float,
) -> tuple[str, str, str]:
    """What to take, what it takes, what it loses and why no other. `source`: to quantize from."""
    if chosen is None:
        least = min(candidates, key=lambda each: each.option.needs.total)
        return (
            f"Nothing of {model} fits here with {ctx:,} tokens of context.",
            f"The smallest, {least.label}, takes {_size(least.option.needs.total)} of "
            f"{_size(where.memory)}.",
            "Take a smaller model, a shorter context or a larger machine ('trit estimate').",
        )
    made = chosen.path is not None
    how = f"trit run {chosen.label}" if made else f"trit quantize {source} OUT.gguf {chosen.type}"
    taken = f"It takes {_size(chosen.option.needs.total)} of {_size(where.memory)}"
    taken += f" with {ctx:,} tokens of context"
    speed = chosen.option.tokens_per_second
    if speed is not None:
        taken += f": about {_rate(speed)} tokens/s"
    return (
        f"Take {chosen.label}: {how}",
        f"{taken}.",
        f"{_loss(chosen)}; {_others(chosen, candidates, readable)}.",
    )


def _loss(chosen: Candidate) -> str:
    if chosen.basis == TRAINED:
        return "It was trained in this type, so it is the model itself"
    known = "measured" if chosen.measured else "expected"
    return f"It loses {chosen.kld:.2g} nats a token ({known})"


def _rate(speed: float) -> str:
    """Two figures, never 1e+02."""
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _others(chosen: Candidate, candidates: Sequence[Candidate], readable: float) -> str:
    """Why nothing better was taken."""
    better = [each for each in candidates if each.kld < chosen.kld]
    if len(candidates) == 1:
        return "there is no other to choose from"
    if not better:
        return "nothing loses less"
    nearest = max(better, key=lambda each: each.kld)
    if not nearest.fits:
        return f"{nearest.label} loses less, but does not fit"
    speed = nearest.option.tokens_per_second
    if speed is not None and speed < readable:
        return f"{nearest.label} loses less, at {_rate(speed)} tokens/s"
    return f"what {nearest.label} would save does not show"
