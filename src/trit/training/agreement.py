"""Whether a file says what a model in torch says: their divergence, in nats.

The engine reads windows of the text held out from the GGUF, torch the same from its weights. Where
both are one model, what is left between them is rounding: of units to float16, of the embedding, of
the cache, of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit.engine import Rows
from trit.evaluate._opened import Opened
from trit.evaluate._rows import Scorer

WINDOWS = 4  # are enough to see that two are one model

Tokens = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Over `tokens` tokens: mean KL(torch ‖ file) in nats, and how often both name one token."""

    kld: float
    same_top: float
    tokens: int


def compare(
    base: Callable[[Tokens], Floats], windows: Iterable[Tokens], gguf: Path, context: int
) -> Agreement:
    """Run a model in torch and a file side by side.

    base     logits float32 (n, vocab) of tokens (n,), in torch
    windows  tokens (n + 1,), n being `context` at most
    """
    columns = []
    with Opened(gguf, context, None) as file, Scorer(file.plan.vocab_size, 1) as scorer:
        for window in windows:
            read, expected = window[:-1], window[1:].astype(np.int32)
            file.engine.remove(0, 0)
            logits = file.engine.forward(Rows.of(read.tolist()), range(len(read)))
            columns.append(scorer.compare(logits, base(read), expected))
    rows = np.concatenate(columns)
    return Agreement(float(rows[:, 2].mean()), float(rows[:, 3].mean()), len(rows))
