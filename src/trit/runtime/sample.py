"""Chooses the next token from logits: llama.cpp's chain of samplers, in its order and meaning.

    logit bias → penalties → top-k → top-p → min-p → temperature → draw

The draw is keyed by (seed, position), so an answer does not depend on what else was computed, in
which order, or how often. Written for vocabularies of 262,144: the core finds the few greatest, and
the rest is never sorted.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trit import _core
from trit.errors import TritError, UsageError

Float32 = NDArray[np.float32]
_NUCLEUS = 1024  # of the greatest logits: they reach top_p most of the time, and are cheap


@dataclass(frozen=True)
class SamplerSettings:
    """What a user may set; the defaults are llama.cpp's.

    temperature        0: always the likeliest token
    top_k              0: off. top_p: 1 is off. min_p: 0 is off
    repeat_penalty     divides positive logits of recent tokens, multiplies negative ones; 1 is off
    presence_penalty   taken from the logits of recent tokens once, frequency_penalty per occurrence
    penalty_last_n     how many tokens are recent; 0: none, -1: all
    logit_bias         added to the logits of these tokens first; -inf forbids
    seed               None: a new one for each Sampler
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 <= self.top_p <= 1, "from 0 to 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1"),
            ("repeat_penalty", 0 < self.repeat_penalty < math.inf, "above 0 (1 is off)"),
            ("presence_penalty", math.isfinite(self.presence_penalty), "a finite number"),
            ("frequency_penalty", math.isfinite(self.frequency_penalty), "a finite number"),
            ("penalty_last_n", self.penalty_last_n >= -1, "-1 (all) or more"),
            ("seed", self.seed is None or 0 <= self.seed < 2**64, "from 0 to 2^64 - 1"),
        )
        for name, ok, expected in checks:
            if not ok:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {expected}.")
        for token, bias in self.logit_bias.items():
            if math.isnan(bias) or bias == math.inf:
                raise UsageError(f"logit_bias of {token} is {bias}; expected a number or -inf.")

    @classmethod
    def from_generation_config(cls, config: Mapping[str, object]) -> SamplerSettings:
        """The defaults a model wants, from its generation_config.json; what it does not say stays
        at ours. UsageError for values of another type."""
        names = {
            "temperature": "temperature",
            "top_k": "top_k",
            "top_p": "top_p",
            "min_p": "min_p",
            "repetition_penalty": "repeat_penalty",
        }
        given: dict[str, float] = {}
        for theirs, ours in names.items():
            value = config.get(theirs)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"generation_config: {theirs} is {value!r}; expected a number.")
            given[ours] = value
        if config.get("do_sample") is False:
            given["temperature"] = 0.0
        return cls(
            temperature=float(given.get("temperature", cls.temperature)),
            top_k=int(given.get("top_k", cls.top_k)),
            top_p=float(given.get("top_p", cls.top_p)),
            min_p=float(given.get("min_p", cls.min_p)),
            repeat_penalty=float(given.get("repeat_penalty", cls.repeat_penalty)),
        )


class Sampler:
    """Samples one sequence. `accept` all its tokens, the prompt's too: penalties look at them."""

    def __init__(self, settings: SamplerSettings, vocab_size: int) -> None:
        """UsageError for a bias on a token beyond the vocabulary."""
        self.settings = settings
        self.seed = secrets.randbits(63) if settings.seed is None else settings.seed
        for token in settings.logit_bias:
            if not 0 <= token < vocab_size:
                raise UsageError(f"logit_bias names token {token}; ids are below {vocab_size}.")
        self._bias_ids = np.fromiter(settings.logit_bias.keys(), np.int64)
        self._bias = np.fromiter(settings.logit_bias.values(), np.float32)
        self._least = math.log(settings.min_p) if settings.min_p > 0 else -math.inf
        last_n = settings.penalty_last_n
        self._recent: deque[int] = deque(maxlen=None if last_n < 0 else last_n)

    def accept(self, token: int) -> None:
        """Tell the sampler that the sequence goes on with `token`."""
        self._recent.append(token)

    def accept_all(self, tokens: Iterable[int]) -> None:
        self._recent.extend(tokens)

    def sample(self, logits: Float32, position: int) -> int:
        """The token for `position` of the sequence, from logits (vocab,) float32, left as they are.

        TritError if no logit is a finite number.
        """
        settings = self.settings
        if settings.temperature == 0:
            top, ids = _core.greatest(self._penalized(logits), 1)
            _check_finite(top)
            return int(ids[0])
        if settings.top_k == 0:
            return self._sample_plainly(logits, position)
        top, token = _core.draw(
            self._penalized(logits), min(settings.top_k, len(logits)), settings.top_p, self._least,
            settings.temperature, self._uniform(position),
        )  # fmt: skip
        _check_finite(top)
        return token

    def _sample_plainly(self, logits: Float32, position: int) -> int:
        """The same from the distribution: what there is without top-k, and the twin of the rest."""
        ids, probabilities = self.distribution(logits)
        if len(ids) == 1:
            return int(ids[0])
        sums = np.cumsum(probabilities)
        target = self._uniform(position) * sums[-1]
        return int(ids[min(int(np.searchsorted(sums, target, side="right")), len(ids) - 1)])

    def distribution(self, logits: Float32) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The ids that may be drawn from logits (vocab,) float32, and their probabilities."""
        logits = self._penalized(logits)
        if self.settings.temperature == 0:
            top, ids = _core.greatest(logits, 1)
            _check_finite(top)
            return ids, np.ones(1)
        top, ids, kept = self._candidates(logits)
        weights = np.exp((kept.astype(np.float64) - top) / self.settings.temperature)
        return ids, weights / weights.sum()

    def _candidates(self, logits: Float32) -> tuple[float, NDArray[np.int64], Float32]:
        """The greatest logit; ids and logits that top-k, top-p and min-p leave.

        Each of them keeps a beginning of the sorted candidates, so what is sorted need not be more
        than any one of them keeps. Probabilities for top-p are among what top-k leaves.
        """
        settings = self.settings
        count = min(settings.top_k or _NUCLEUS, len(logits))
        top, ids = _core.greatest(logits, count)
        _check_finite(top)
        bound = top + self._least
        if settings.top_k == 0 and settings.top_p == 1:
            ids = np.flatnonzero(logits >= bound)
            return top, ids, logits[ids]
        kept = logits[ids]
        total = _mass(kept if settings.top_k else logits, top)
        if settings.top_k == 0 and kept[-1] >= bound and _mass(kept, top) < settings.top_p * total:
            count = max(1, int(np.count_nonzero(logits >= bound)))
            ids = _core.greatest(logits, count)[1]
            kept = logits[ids]
        sums = np.cumsum(np.exp(kept.astype(np.float64) - top))
        reached = 1 + int(np.searchsorted(sums, settings.top_p * total))
        count = max(1, min(reached, int(np.count_nonzero(kept >= bound))))
        return top, ids[:count], kept[:count]

    def _uniform(self, position: int) -> float:
        """A number in [0, 1) that (seed, position) alone decides."""
        # A hash of both is as random as a generator keyed with them, and a tenth of its cost.
        digest = hashlib.blake2b(f"{self.seed}:{position}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> 11) * 2.0**-53

    def _penalized(self, logits: Float32) -> Float32:
        """Logits with biases and penalties; the same array if there are none."""
        settings = self.settings
        penalties = (settings.presence_penalty, settings.frequency_penalty)
        counts = Counter(self._recent) if (settings.repeat_penalty, *penalties) != (1, 0, 0) else {}
        if not counts and not len(self._bias):
            return logits
        logits = logits.copy()
        logits[self._bias_ids] += self._bias
        if counts:
            recent = np.fromiter(counts.keys(), np.int64)
            times = np.fromiter(counts.values(), np.float32)
            values = logits[recent]
            repeat = np.float32(settings.repeat_penalty)
            values = np.where(values > 0, values / repeat, values * repeat)
            logits[recent] = values - times * np.float32(penalties[1]) - np.float32(penalties[0])
        return logits


def log_probabilities(
    logits: Float32, chosen: int, count: int
) -> tuple[float, list[tuple[int, float]]]:
    """Natural log probabilities under the plain softmax of logits (vocab,) float32: that of
    `chosen`, and the `count` greatest as (id, log probability), greatest first."""
    top, ids = _core.greatest(logits, max(1, min(count, len(logits))))
    _check_finite(top)
    total = top + math.log(_mass(logits, top))
    best = [(int(token), float(logits[token]) - total) for token in ids[:count]]
    return float(logits[chosen]) - total, best


def _check_finite(greatest: float | np.float32) -> None:
    if not math.isfinite(greatest):
        raise TritError(
            f"The model's logits are not usable: the greatest is {greatest}. Its weights may hold "
            "values that are not finite, or a logit bias forbids every token."
        )


def _mass(logits: Float32, top: float) -> float:
    """The sum of exp(logit - top), in double precision."""
    return float(np.exp(logits - np.float32(top)).sum(dtype=np.float64))
