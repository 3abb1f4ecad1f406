"""A teacher and settings small enough for tests of distillation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import small_model
import text_model
from trit.training.distill import DistillSettings

ESSAY = Path(__file__).parent / "text" / "essay.txt"
SETTINGS = DistillSettings(
    "Q2_K", (ESSAY,), steps=12, batch=4, context=32, rate=2e-3, warmup=2, held_out=0.2,
    measure_every=4, measure_windows=4, checkpoint_every=3, seed=3, calibration=str(ESSAY),
)  # fmt: skip


def teacher(path: Path, seed: int = 0, odd: int = 0) -> Path:
    """A random llama that reads bytes and is sure of nothing; `odd` columns wider than blocks."""

    def soften(weights: dict[str, Any]) -> None:
        embedding = weights["token_embd.weight"] * 0.3
        weights.update(small_model.arrays(odd, seed))
        weights["token_embd.weight"] = np.hstack([embedding, embedding[:, :odd]])

    return text_model.write(path, seed, change=soften)


def settings(**changes: Any) -> DistillSettings:
    """SETTINGS with some changed."""
    return replace(SETTINGS, **changes)
