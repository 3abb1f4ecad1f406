"""Rotary frequencies of every scaling, from GGUF keys: linear, llama3, yarn, longrope.

llama3 and longrope come as tensors of divisors (`rope_freqs.weight`, `rope_factors_*.weight`), the
others as keys. Formulas: RoPE arXiv:2104.09864, YaRN arXiv:2309.00071, LongRoPE arXiv:2402.13753;
defaults for absent keys are llama.cpp's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from trit.archs._fields import Fields
from trit.errors import InvalidFileError, UnsupportedError
from trit.plan import Rope

Pairs = Literal["halves", "adjacent"]
Read = Callable[[str], npt.NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]
Frequencies = npt.NDArray[np.float64]

FREQS = "rope_freqs.weight"
LONG = "rope_factors_long.weight"
SHORT = "rope_factors_short.weight"


def plain(keys: Fields, head_dim: int, base: float, pairs: Pairs, factor: float = 1.0) -> Rope:
    """Unscaled frequencies base^(-2i/n), or linearly scaled ones (divided by `factor`)."""
    return _rope(_frequencies(_dimensions(keys, head_dim), base) / factor, pairs, 1.0)


def scaled(
    keys: Fields, head_dim: int, shapes: Shapes, read: Read, pairs: Pairs, positions: int
) -> Rope:
    """Frequencies with the model's scaling, for a context of `positions`.

    `positions` chooses between the short and the long factors of longrope; nothing else needs it.
    """
    n = _dimensions(keys, head_dim)
    base = keys.number("rope.freq_base", 10000.0)
    magnitude = keys.number("rope.scaling.attn_factor", 1.0)
    frequencies = _frequencies(n, base)
    if (name := factors_name(keys, shapes, positions)) is not None:
        frequencies = frequencies / _factors(keys, name, n // 2, shapes, read)
    kind = keys.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedError(f"{keys.path}: rope scaling {kind!r} is not one trit knows.")
    factor = keys.optional_number("rope.scaling.factor")
    if factor is None:
        factor = keys.optional_number("rope.scale_linear")
    if kind == "none" or factor is None:
        factor = 1.0
    if kind == "yarn":
        frequencies, yarn_magnitude = _yarn(keys, frequencies, n, base, factor)
        return _rope(frequencies, pairs, magnitude * yarn_magnitude)
    return _rope(frequencies / factor, pairs, magnitude)


def factors_name(keys: Fields, shapes: Shapes, positions: int) -> str | None:
    """The tensor of divisors that a context of `positions` uses, if the model has any."""
    if FREQS in shapes:
        return FREQS
    if LONG not in shapes and SHORT not in shapes:
        return None
    return LONG if positions > original_context(keys) else SHORT


def original_context(keys: Fields) -> int:
    """Positions the model was first trained on, before its context was stretched."""
    return keys.count("rope.scaling.original_context_length", keys.count("context_length"))


def _yarn(
    keys: Fields, frequencies: Frequencies, n: int, base: float, factor: float
) -> tuple[Frequencies, float]:
    """Interpolate low frequencies, keep high ones, ramp between; and the attention factor."""
    if base <= 1.0:
        raise keys.error("rope.freq_base", f"yarn needs a base above 1, got {base!r}.")
    original = original_context(keys)

    def turns_at(rotations: float) -> float:
        return n * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(turns_at(keys.number("rope.scaling.yarn_beta_fast", 32.0))))
    high = min(n - 1, math.ceil(turns_at(keys.number("rope.scaling.yarn_beta_slow", 1.0))))
    ramp = (np.arange(n // 2) - low) / max(0.001, high - low)
    keep = 1.0 - np.clip(ramp, 0.0, 1.0)
    keep *= keys.number("rope.scaling.yarn_ext_factor", 1.0)
    usual = 0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0
    magnitude = keys.number("rope.scaling.yarn_attn_factor", usual)
    return frequencies / factor * (1.0 - keep) + frequencies * keep, magnitude


def _dimensions(keys: Fields, head_dim: int) -> int:
    n = keys.count("rope.dimension_count", head_dim, low=2, high=head_dim)
    if n % 2:
        raise keys.error("rope.dimension_count", f"expected an even number, got {n}.")
    return n


def _frequencies(n: int, base: float) -> Frequencies:
    return np.asarray(base ** -(np.arange(0, n, 2, dtype=np.float64) / n))


def _factors(keys: Fields, name: str, count: int, shapes: Shapes, read: Read) -> Frequencies:
    where = f"tensor '{name}'"
    if name not in shapes:
        raise InvalidFileError(keys.path, where, "missing, though its twin for rope is there.")
    if tuple(shapes[name]) != (count,):
        raise InvalidFileError(
            keys.path, where, f"expected shape ({count},), got {tuple(shapes[name])}."
        )
    factors = np.asarray(read(name), dtype=np.float64)
    if not np.all(np.isfinite(factors)) or np.any(factors <= 0):
        raise InvalidFileError(keys.path, where, "expected finite divisors above zero.")
    return factors


def _rope(frequencies: Frequencies, pairs: Pairs, magnitude: float) -> Rope:
    rounded = tuple(float(value) for value in frequencies.astype(np.float32))
    return Rope(inv_freq=rounded, pairs=pairs, magnitude=magnitude)
