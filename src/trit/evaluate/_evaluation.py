"""What `evaluate` answers, and what it says on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trit.evaluate._estimate import Estimate
from trit.evaluate.divergence import Divergence, Spread


@dataclass(frozen=True)
class Text:
    """The text measured on: its name ("(text)" for one given as a str), size and sha256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Running:
    """How far an evaluation is: windows done of all; the figures so far, None before the first."""

    done: int
    total: int
    ctx: int
    weight_bytes: int  # of the model and its reference, mapped, not copied
    seconds: float
    ppl: Estimate | None
    kld: float | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and all it depends on.

    text_tokens   of the whole text
    tokens        scored ones: ctx − 1 − ctx // 2 of each of the `chunks` windows
    isa, threads  of the engine (threads change the speed alone)
    cache_type    what keys and values were kept in
    ppl           perplexity
    divergence    against the reference, None without one
    """

    model: str
    reference: str | None
    text: Text
    text_tokens: int
    ctx: int
    chunks: int
    tokens: int
    isa: str
    threads: int
    cache_type: str
    seconds: float
    ppl: Estimate
    divergence: Divergence | None

    def to_dict(self) -> dict[str, Any]:
        """Flat, as JSON has it; probabilities are fractions. Quantiles: `kld_p99`, `kld_p999` …"""
        answer: dict[str, Any] = {
            "model": self.model,
            "reference": self.reference,
            "text": {
                "name": self.text.name,
                "bytes": self.text.bytes,
                "sha256": self.text.sha256,
                "tokens": self.text_tokens,
            },
            "ctx": self.ctx,
            "chunks": self.chunks,
            "tokens": self.tokens,
            "isa": self.isa,
            "threads": self.threads,
            "cache_type": self.cache_type,
            "seconds": round(self.seconds, 3),
            **_pair("ppl", self.ppl),
        }
        if self.divergence is not None:
            answer |= _divergence(self.divergence)
        return answer


def _pair(name: str, value: Estimate) -> dict[str, float]:
    return {name: value.mean, f"{name}_stderr": value.stderr}


def _divergence(found: Divergence) -> dict[str, float | None]:
    return {
        **_pair("ppl_base", found.base),
        **_pair("ln_ppl_ratio", found.ln_ratio),
        **_pair("ppl_ratio", found.ratio),
        **_pair("ppl_difference", found.difference),
        "ln_ppl_correlation": found.correlation,
        **_spread("kld", found.kld),
        **_spread("delta_p", found.delta_p),
        **_pair("delta_p_rms", found.delta_p_rms),
        **_pair("same_top", found.same_top),
    }


def _spread(name: str, values: Spread) -> dict[str, float]:
    return {
        f"{name}_mean": values.mean,
        f"{name}_stderr": values.stderr,
        f"{name}_max": values.max,
        **{f"{name}_{label(q)}": value for q, value in values.quantiles.items()},
        f"{name}_min": values.min,
    }


def label(fraction: float) -> str:
    """Of a quantile: 0.999 -> 'p999', 0.05 -> 'p05', 0.5 -> 'median'."""
    return "median" if fraction == 0.5 else "p" + f"{fraction:.3f}"[2:].removesuffix("0")
