"""Where the factors of AWQ go in a model: found layer by layer, folded into what comes before.

Norm → q, k, v; v → output, where each head of values has one of queries; norm → gate, up; up →
down. A vector or matrix that comes before is divided by what the columns behind it are multiplied
with, so the model computes what it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import calibrate
from trit.calibrate import LayerPass, OnProgress
from trit.files._tensor import Tensor
from trit.job.feedback import spread
from trit.plan import GatedFeedForward, Layer, Linear
from trit.quantizers import awq

Floats = NDArray[np.float32]

CHUNKS = 32  # of the text; what a channel carries is settled long before
SAMPLED = 4  # chunks whose inputs are looked at one by one
TOKENS = 256  # on which factors are tried


@dataclass
class Balance:
    """What becomes of each tensor, by GGUF name.

    columns  linear -> what its columns are multiplied with, float32 (cols,)
    rows     linear -> what its rows, and its bias, are divided by, float32 (rows,)
    norms    norm -> what it is divided by
    grams    linear -> of its inputs as they will be, float32 (groups, group, group)
    gains    error of the output with the factors, as a share of that without, one per module
    shares   of the inputs' energy in the 1% of the channels that carry most, one per module
    """

    columns: dict[str, Floats] = field(default_factory=dict)
    rows: dict[str, Floats] = field(default_factory=dict)
    norms: dict[str, Floats] = field(default_factory=dict)
    grams: dict[str, Floats] = field(default_factory=dict)
    gains: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # sha256 of each

    @property
    def changed(self) -> int:
        """The linears with factors other than 1."""
        return sum(bool((factors != 1).any()) for factors in self.columns.values())

    @property
    def salient(self) -> float:
        """The mean share of energy that 1% of the channels carry."""
        return float(np.mean(self.shares)) if self.shares else 0.0

    def fold(self, name: str, weights: Floats, added: Floats) -> Floats:
        """A tensor with its factors in it; `added` is what its arch adds to a norm as it is saved.

        A new array, or `weights` where it has none.
        """
        linear = name.removesuffix("bias") + "weight" if name.endswith(".bias") else name
        if linear in self.rows:
            weights = (weights.T / self.rows[linear]).T
        if name in self.columns:
            weights = weights * self.columns[name]
        if name in self.norms:
            weights = (weights + added) / self.norms[name] - added
        return np.ascontiguousarray(weights, np.float32)


@dataclass(frozen=True)
class _Module:
    """Linears with the same inputs, and what comes before them: a norm, a linear's rows, nothing"""

    linears: tuple[Linear, ...]
    norm: str | None = None
    before: Linear | None = None


def balance(
    model: calibrate.Model,
    text: Path | None,
    bits: int,
    group: int,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Balance:
    """Search the factors of a dense model on a text; None: trit's own and what the model writes.

    Errors as for calibrate.data and calibrate.walk.
    """
    given = calibrate.data(model, text, threads=threads, on_progress=on_progress)
    found = Balance(texts=[part.sha256 for part in given.texts])
    tokens = spread(given.tokens, CHUNKS)
    for layer in calibrate.walk(model, tokens, threads=threads, on_progress=on_progress):
        for module in _modules(layer.plan):
            _add(found, model, layer, module, bits, group, threads)
    return found


def _add(
    found: Balance,
    model: calibrate.Model,
    layer: LayerPass,
    module: _Module,
    bits: int,
    group: int,
    threads: int | None,
) -> None:
    names = list(dict.fromkeys(linear.weight for linear in module.linears))
    means = layer.of(names[0]).means[0]
    most = np.sort(means)[-max(1, round(len(means) / 100)) :]
    found.shares.append(float(most.sum() / max(float(means.sum()), 1e-30)))
    inputs, _ = layer.sample(names[0], range(SAMPLED))
    factors = np.ones(inputs.shape[1], np.float32)
    if module.norm is not None or module.before is not None:
        weights = [_decoded(model.tensors[name]) for name in names]
        sample = np.ascontiguousarray(inputs[:: max(1, len(inputs) // TOKENS)])
        chosen = awq.scaling(weights, sample, bits, group, threads)
        found.gains.append(chosen.error)
        factors = chosen.factors
    by_group = awq.grams(inputs / factors, group)
    for name in names:
        found.columns[name] = factors
        found.grams[name] = by_group
    if module.norm is not None:
        found.norms[module.norm] = factors
    elif module.before is not None:
        before = module.before
        rows = np.ones(model.tensors[before.weight].rows, np.float32)
        rows[before.row_start : before.row_start + before.rows] = factors
        found.rows[before.weight] = rows


def _modules(layer: Layer) -> Iterator[_Module]:
    mixer, part = layer.mixer, layer.feed_forward
    norm = None if layer.mixer_norm is None else layer.mixer_norm.weight
    yield _Module((mixer.q, mixer.k, mixer.v), norm=norm)
    alike = mixer.heads == mixer.kv_heads and mixer.sub_norm is None
    yield _Module((mixer.output,), before=mixer.v if alike else None)
    assert isinstance(part, GatedFeedForward), "a dense model"
    norm = None if layer.feed_forward_norm is None else layer.feed_forward_norm.weight
    yield _Module((part.gate, part.up), norm=norm)
    yield _Module((part.down,), before=part.up if part.sub_norm is None else None)


def _decoded(tensor: Tensor) -> Floats:
    return tensor.decode()
