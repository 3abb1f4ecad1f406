"""What a model takes at one type, and how much context fits beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trit import formats
from trit.engine import PAGE
from trit.estimate._machine import DECODING_SHARE, Machine
from trit.estimate._subject import Subject
from trit.evaluate.speed import cached_bytes, decoded_bytes
from trit.files._tensor import TensorInfo
from trit.runtime.needs import Needs, needs
from trit.runtime.scheduler import PASS_ROWS


@dataclass(frozen=True)
class Asked:
    """How a model is to be run: positions of context, what they are kept in, how many at once."""

    ctx: int
    cache_type: str = "f16"
    sequences: int = 1


@dataclass(frozen=True)
class Option:
    """A model in one type on one machine.

    type, bits       of the file; bits per weight over all tensors
    file_bytes       of the whole file; None where its header is not known
    needs            memory at the context asked for
    fits             whether that is there
    largest_ctx      the most positions that fit, at most the model's own; 0: none
    tokens_per_second   expected of decoding in the middle of the context, from the bandwidth
    """

    type: str
    bits: float
    file_bytes: int | None
    needs: Needs
    fits: bool
    largest_ctx: int
    tokens_per_second: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "type": self.type,
            "bits_per_weight": self.bits,
            "file_bytes": self.file_bytes,
            **self.needs.to_dict(),
            "fits": self.fits,
            "largest_ctx": self.largest_ctx,
            "tokens_per_second": self.tokens_per_second,
        }


def option(
    subject: Subject,
    type: str,
    tensors: Mapping[str, TensorInfo],
    asked: Asked,
    where: Machine,
    file_bytes: int | None,
) -> Option:
    """What the model takes with its tensors in these formats."""
    weights = sum(info.nbytes for info in tensors.values())
    taken = needs_of(subject, weights, asked, where.threads)
    return Option(
        type=type,
        bits=8 * weights / subject.parameters,
        file_bytes=file_bytes,
        needs=taken,
        fits=taken.total <= where.memory,
        largest_ctx=largest_ctx(subject, weights, asked, where.memory, where.threads),
        tokens_per_second=_speed(subject, decoded_bytes(subject.plan, tensors), asked, where),
    )


def _speed(subject: Subject, weights: float, asked: Asked, where: Machine) -> float | None:
    """Tokens per second where each reads that many bytes of weights, and half the context."""
    if where.bandwidth is None:
        return None
    moved = weights + cached_bytes(subject.plan, asked.cache_type, asked.ctx // 2)
    return DECODING_SHARE * where.bandwidth / moved


def pure_option(subject: Subject, bits: float, asked: Asked, where: Machine) -> Option:
    """What the model takes if every weight took exactly so many bits."""
    taken = pure(subject, bits, asked, where.threads)
    float32 = {w.name: TensorInfo(w.name, w.shape, formats.get("f32")) for w in subject.weights}
    read = decoded_bytes(subject.plan, float32) * bits / 32
    return Option(
        type=f"{bits:g} bits",
        bits=bits,
        file_bytes=None,
        needs=taken,
        fits=taken.total <= where.memory,
        largest_ctx=largest_ctx(subject, taken.weights, asked, where.memory, where.threads),
        tokens_per_second=_speed(subject, read, asked, where),
    )


def pure(subject: Subject, bits: float, asked: Asked, threads: int) -> Needs:
    """Memory if every weight took exactly so many bits."""
    return needs_of(subject, round(subject.parameters * bits / 8), asked, threads)


def needs_of(subject: Subject, weights: int, asked: Asked, threads: int) -> Needs:
    """Memory of a run with weights of that many bytes, in passes as `trit run` makes them."""
    return needs(
        subject.plan,
        weights,
        asked.ctx,
        metadata=subject.metadata,
        cache_type=asked.cache_type,
        batch=PASS_ROWS,
        threads=threads,
        sequences=asked.sequences,
    )


def largest_ctx(subject: Subject, weights: int, asked: Asked, memory: int, threads: int) -> int:
    """The most positions that fit, in whole pages or the model's own; 0 where not one page does."""
    most = subject.plan.context_length

    def fits(pages: int) -> bool:
        ctx = min(pages * PAGE, most)
        at = Asked(ctx, asked.cache_type, asked.sequences)
        return needs_of(subject, weights, at, threads).total <= memory

    low, high = 0, -(-most // PAGE)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return min(low * PAGE, most)
