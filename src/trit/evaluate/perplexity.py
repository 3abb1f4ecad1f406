"""Perplexity: e to the mean surprise of a text's tokens, in windows as llama-perplexity cuts them.

The text's tokens are cut into windows of `ctx` tokens that do not overlap; what is left over at the
end is not used. Each window is read afresh, its first token replaced by BOS where the model wants
one. Only its second half is scored, so that every prediction has half a window behind it: the token
at position i + 1 from the logits at position i, for i = ctx // 2 … ctx − 2. Figures of the same
text, context and number of windows can be compared with those of llama.cpp's tools/perplexity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.errors import UsageError
from trit.evaluate._estimate import Estimate, exponential

SHORTEST = 8  # tokens of a window; below, nothing is left to score


@dataclass(frozen=True)
class Window:
    """One window: what the model reads, where it is asked, what it should have said.

    read      (ctx,) int32, BOS in front where the model wants it
    asked     positions whose logits are scored, ascending
    expected  (len(asked),) int32, the token that follows each
    """

    read: NDArray[np.int32]
    asked: range
    expected: NDArray[np.int32]


def windows(
    tokens: NDArray[np.int32], ctx: int, bos: int | None, limit: int | None
) -> list[Window]:
    """The first `limit` windows (None: all) of a text's tokens (n,) int32.

    `bos`: the token each window begins with, None for a model without one. UsageError where `ctx`
    or `limit` makes no sense or the text is shorter than one window.
    """
    if ctx < SHORTEST:
        raise UsageError(f"--ctx {ctx}: a window needs at least {SHORTEST} tokens.")
    if limit is not None and limit < 1:
        raise UsageError(f"--chunks {limit}: at least one is needed.")
    count = len(tokens) // ctx
    if count == 0:
        raise UsageError(
            f"the text has {len(tokens)} tokens, one window needs {ctx}. "
            "Take a longer text or a smaller --ctx."
        )
    asked = range(ctx // 2, ctx - 1)
    made = []
    for start in range(0, min(count, limit or count) * ctx, ctx):
        window = tokens[start : start + ctx]
        read = window.copy()
        if bos is not None:
            read[0] = bos
        made.append(Window(read, asked, window[asked.start + 1 :]))
    return made


def perplexity(surprise: NDArray[np.float64]) -> Estimate:
    """e^mean of −ln p (n,), with its standard error to first order."""
    return exponential(surprise)
