"""Whether the file that was written says what the model in torch says: their divergence, in nats.

The engine reads windows of the text held out from the GGUF, torch the same from its weights. What
is left between them is rounding: of units to float16, of the embedding, of the cache, of sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trit.engine import Rows
from trit.evaluate._opened import Opened
from trit.evaluate._rows import Scorer
from trit.training.session import Session

WINDOWS = 4


@dataclass(frozen=True)
class Agreement:
    """Over `tokens` tokens: mean KL(torch ‖ file) in nats, and how often both name one token."""

    kld: float
    same_top: float
    tokens: int


def compare(session: Session, gguf: Path, windows: int = WINDOWS) -> Agreement:
    """Run a trained session and the file made of it side by side."""
    context = session.config.model.context
    session.network.ternary = session.ternary(session.step - 1)
    columns = []
    with Opened(gguf, context, None) as file, Scorer(file.plan.vocab_size, 1) as scorer:
        for window in session.packed.windows(windows):
            read, expected = window[:-1], window[1:].astype(np.int32)
            with torch.no_grad():
                base = session.network.logits(session.rows(read)[None])[0].cpu().numpy()
            file.engine.remove(0, 0)
            logits = file.engine.forward(Rows.of(read.tolist()), range(len(read)))
            columns.append(scorer.compare(logits, base, expected))
    rows = np.concatenate(columns)
    return Agreement(float(rows[:, 2].mean()), float(rows[:, 3].mean()), len(rows))
