"""Which layers attend through a sliding window, and how wide it is, from GGUF keys."""

from __future__ import annotations

from trit.archs._config import TRIT_PATTERN, TRIT_WINDOW
from trit.archs._fields import Fields, is_list

Windows = tuple[int | None, ...]


def from_trit(keys: Fields, layers: int) -> Windows:
    """Windows of a family without keys of its own for them: trit's, or none."""
    own = Fields(keys.values, keys.path, "trit.")
    if not own.has(TRIT_WINDOW):
        return (None,) * layers
    window = own.count(TRIT_WINDOW)
    slides = own.flags(TRIT_PATTERN, layers) if own.has(TRIT_PATTERN) else (True,) * layers
    return spread(window, slides)


def sliding(keys: Fields, layers: int, period: int) -> tuple[bool, ...]:
    """Which layers slide: an array, or a period of which the last layer is full.

    `period` is the family's own, for files that do not say (0: all slide, as llama.cpp reads it).
    """
    key = "attention.sliding_window_pattern"
    if keys.has(key):
        if is_list(keys.values[keys.prefix + key]):
            return keys.flags(key, layers)
        period = keys.count(key, low=0)
    return periodic(layers, period)


def periodic(layers: int, period: int) -> tuple[bool, ...]:
    """All but the last of every `period` layers."""
    return tuple(period == 0 or i % period < period - 1 for i in range(layers))


def spread(window: int, slides: tuple[bool, ...]) -> Windows:
    """The window where a layer slides, None elsewhere."""
    return tuple(window if slide else None for slide in slides)
