"""What one row of logits says of the token that came next, and how two rows differ.

Rows are float32 as the engine makes them; sums run in float64. A row is worked on alone, so that
even a vocabulary of 262,144 stays in the cache, and rows are spread over threads (numpy lets go of
the interpreter lock in all that is slow here); no result depends on the number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Tokens = NDArray[np.int32]


class Scorer:
    """Scores rows of logits of one vocabulary. A context manager: it owns threads."""

    def __init__(self, vocab: int, threads: int) -> None:
        self._vocab = vocab
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._local = threading.local()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def surprise(self, logits: Floats, tokens: Tokens) -> Doubles:
        """−ln p of `tokens` (k,) under `logits` (k, vocab): (k, 1) float64."""

        def score(row: int) -> tuple[float, ...]:
            _, log_sum, _, _ = self._exponents(logits[row], 0)
            return (log_sum - float(logits[row, tokens[row]]),)

        return self._each(score, len(tokens))

    def log_sums(self, logits: Floats) -> Doubles:
        """ln Σ e^x of each row of `logits` (k, vocab): (k,) float64."""
        return self._each(lambda row: (self._exponents(logits[row], 0)[1],), len(logits))[:, 0]

    def compare(self, logits: Floats, base: Floats, tokens: Tokens) -> Doubles:
        """Both rows at once: (k, 4) float64.

        Columns: −ln p of the token under `logits`, the same under `base`, KL(base ‖ logits) in
        nats, and 1.0 where both put the same token on top.
        """

        def score(row: int) -> tuple[float, ...]:
            x, y, token = logits[row], base[row], tokens[row]
            _, log_sum, _, top = self._exponents(x, 0)
            weights, base_log_sum, base_sum, base_top = self._exponents(y, 1)
            # Σ p (ln p − ln q) = Σ p (y − x) − (ln Σe^y − ln Σe^x): the difference of the logits
            # is small and exact where they nearly agree, and zero where they do.
            difference = np.subtract(y, x, out=self._scratch(0))
            difference *= weights
            mean = float(np.add.reduce(difference, dtype=np.float64)) / base_sum
            return (
                log_sum - float(x[token]),
                base_log_sum - float(y[token]),
                mean - (base_log_sum - log_sum),
                float(top == base_top),
            )

        return self._each(score, len(tokens))

    def _exponents(self, row: Floats, slot: int) -> tuple[Floats, float, float, int]:
        """e^(x − max), ln Σ e^x, Σ e^(x − max), and where the maximum is (first of several)."""
        top = int(row.argmax())
        out = np.subtract(row, row[top], out=self._scratch(slot))
        np.exp(out, out=out)
        total = float(np.add.reduce(out, dtype=np.float64))
        return out, float(row[top]) + float(np.log(total)), total, top

    def _scratch(self, slot: int) -> Floats:
        """A row of this thread's own; the values of one slot last until it is asked for again."""
        if not hasattr(self._local, "rows"):
            self._local.rows = np.empty((2, self._vocab), dtype=np.float32)
        row: Floats = self._local.rows[slot]
        return row

    def _each(self, score: Callable[[int], tuple[float, ...]], count: int) -> Doubles:
        map_rows = map if self._pool is None else self._pool.map
        return np.array(list(map_rows(score, range(count))), dtype=np.float64)
