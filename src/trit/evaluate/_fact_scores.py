"""How likely a model finds the answer to a fact, and each near miss.

ln p of a choice is the sum of ln p of its tokens: those behind the prompt's own, or from where the
texts of prompt and choice part with the prompt alone, if a tokenizer joins what meets there. The
first token of all is given, since nothing stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from trit.evaluate._continuations import Continuation, likelihoods
from trit.evaluate._fact_items import Fact
from trit.evaluate._opened import Opened

Doubles = NDArray[np.float64]


def score(
    model: Opened, items: Sequence[Fact], on_progress: Callable[[int], None] | None = None
) -> list[Doubles]:
    """ln p in nats of the choices of each item: arrays (choices,) float64, the answer's first.

    `on_progress` is called with the number of items done. TritError for logits that are no numbers.
    """
    encode = model.encoder()
    asked = [
        ask(encode(item.prompt), [encode(f"{item.prompt} {c}") for c in item.choices])
        for item in items
    ]
    found = likelihoods(model.engine, asked, model.file.path, on_progress)
    return [each.log_p for each in found]


def ask(prompt: list[int], texts: list[list[int]]) -> list[Continuation]:
    """Texts in tokens, scored from where one of them parts with the prompt; none scores nothing."""
    most = min(len(prompt), *(len(text) - 1 for text in texts))
    seam = next((i for i in range(most) if any(t[i] != prompt[i] for t in texts)), most)
    return [Continuation(text, max(1, seam)) for text in texts]
