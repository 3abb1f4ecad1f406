"""The walk through a model that counts what each neuron does, and the answer it gives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import _core, engine, zoo
from trit.calibrate import LayerPass, data, plan_for, walk
from trit.errors import UnsupportedError
from trit.evaluate import Text
from trit.files.gguf import Tensor
from trit.files.source import Source, open_source
from trit.machine.processors import default_threads
from trit.neurons._firing import DEFINITIONS
from trit.neurons._tally import FRACTIONS, RARE, LayerNeurons, Tally
from trit.plan import GatedFeedForward, PlainFeedForward, Plan

PathLike = str | os.PathLike[str]
Dense = GatedFeedForward | PlainFeedForward
Doubles = NDArray[np.float64]
OnProgress = Callable[[str, int, int], None]

CLAIM = 0.8  # of neurons are said to activate rarely
SLAB_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class Neurons:
    """What was measured, and all it depends on.

    activation  the function before `ffn_down`: silu, gelu, relu2
    sub_norm    whether a norm stands between; then a is what comes out of the norm
    tokens      measured: `chunks` of `ctx`
    notes       what was not as one may expect, in words
    """

    model: str
    activation: str
    sub_norm: bool
    texts: tuple[Text, ...]
    ctx: int
    chunks: int
    layers: tuple[LayerNeurons, ...]
    exact: bool
    isa: str
    threads: int
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def tokens(self) -> int:
        return self.ctx * self.chunks

    def rare(self, definition: str, below: float) -> float:
        """The share of the model's neurons that fire for less than `below` of the tokens."""
        return self._mean(lambda layer: layer.rare(definition, below))

    def active(self, definition: str) -> float:
        """The share of the model's neurons that fire for a token."""
        return self._mean(lambda layer: layer.active(definition))

    def carry(self, fraction: float, even: bool = False) -> float:
        """The share of neurons that carries this fraction of each layer's energy."""
        return self._mean(lambda layer: layer.carry(fraction, even))

    def carry_token(self, fraction: float) -> float:
        """The share of neurons that carries this fraction of a token's energy."""
        return self._mean(lambda layer: layer.carry_token[fraction])

    def _mean(self, figure: Callable[[LayerNeurons], float]) -> float:
        sizes = [layer.neurons for layer in self.layers]
        return float(np.average([figure(layer) for layer in self.layers], weights=sizes))

    def claim(self) -> str:
        """Whether 80% of the neurons activate rarely, in one sentence."""
        found = {(d, below): self.rare(d, below) for d in DEFINITIONS for below in RARE}
        holds = [case for case, share in found.items() if share >= CLAIM]
        if holds:
            case = _mildest(holds)
            answer = (
                f"true for this model by {len(holds)} of {len(found)} definitions; of these the "
                "mildest: "
            )
        else:
            case = max(found, key=lambda case: found[case])
            answer = f"false for this model by all {len(found)} definitions; the most is "
        return (
            f'"80% rarely activate" is {answer}{100 * found[case]:.1f}% that fire for less than '
            f"{100 * case[1]:g}% of the tokens where firing means {DEFINITIONS[case[0]]}; "
            f"{100 * self.carry(0.9, even=True):.0f}% of the neurons carry 90% of the energy of a "
            f"text, {100 * self.carry_token(0.9):.0f}% that of a single token, other ones for "
            "each."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; shares are fractions. Single neurons are left out (`write_each`)."""
        return {
            "model": self.model,
            "activation": self.activation,
            "sub_norm": self.sub_norm,
            "texts": [asdict(text) for text in self.texts],
            "ctx": self.ctx,
            "chunks": self.chunks,
            "tokens": self.tokens,
            "exact": self.exact,
            "isa": self.isa,
            "threads": self.threads,
            "seconds": round(self.seconds, 3),
            "neurons": sum(layer.neurons for layer in self.layers),
            **_figures(self),
            "claim": self.claim(),
            "layers": [
                {"layer": layer.layer, "neurons": layer.neurons, **_figures(layer)}
                for layer in self.layers
            ],
            "notes": list(self.notes),
        }


def _mildest(holds: list[tuple[str, float]]) -> tuple[str, float]:
    """Of the definitions by which it is true the one that asks most: the lowest threshold."""
    order = list(DEFINITIONS)
    return max(holds, key=lambda case: (order.index(case[0]), -case[1]))


def _figures(of: Neurons | LayerNeurons) -> dict[str, Any]:
    per_token = of.carry_token if isinstance(of, Neurons) else of.carry_token.__getitem__
    return {
        "active": {name: of.active(name) for name in DEFINITIONS},
        "rare": {
            name: {f"{below:g}": of.rare(name, below) for below in RARE} for name in DEFINITIONS
        },
        "carry_energy": {f"{f:g}": of.carry(f) for f in FRACTIONS},
        "carry_even_energy": {f"{f:g}": of.carry(f, even=True) for f in FRACTIONS},
        "carry_token_energy": {f"{f:g}": per_token(f) for f in FRACTIONS},
    }


def neurons(
    model: PathLike,
    text: PathLike | None = None,
    *,
    ctx: int | None = None,
    chunks: int | None = None,
    exact: bool = False,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Neurons:
    """Measure how often, how strongly and to what effect each feed-forward neuron fires.

    model        a GGUF file, a Hugging Face folder, or a name of the zoo, pulled when missing
    text         a str is the text itself, a path object names a UTF-8 file; None: trit's passages
                 and text that the model writes
    ctx          tokens of a piece of text, None: 512, or the model's own context if that is less
    chunks       how many pieces, None: all
    exact        multiply with float weights as floats, not rounded to Q8_0: a third of the speed
    on_progress  called with (what, done, total), in tokens' worth of work
    A neuron's activation is the input of `ffn_down`: activation(gate) · up, behind the norm where
    one stands between. All text goes through one layer, then through the next, so the model may be
    larger than memory. Errors: as for `calibrate.data` and `walk`; UnsupportedError for a mixture
    of experts.
    """
    begun = time.perf_counter()
    source = open_source(zoo.resolve(os.fspath(model)))
    try:
        plan = plan_for(source, ctx)
        parts = dense(plan, source)
        given = data(source, text, ctx, chunks, threads, on_progress)
        layers = tuple(
            _layer(layer, parts[layer.index], source, len(given.tokens))
            for layer in walk(
                source, given.tokens, exact=exact, threads=threads, on_progress=on_progress
            )
        )
        count, length = given.tokens.shape
        return Neurons(
            model=os.fspath(source.path), activation=parts[0].activation,
            sub_norm=isinstance(parts[0], GatedFeedForward) and parts[0].sub_norm is not None,
            texts=given.texts, ctx=length, chunks=count, layers=layers, exact=exact,
            isa=engine.isa(), threads=threads or default_threads(),
            seconds=time.perf_counter() - begun, notes=given.notes,
        )  # fmt: skip
    finally:
        source.close()


def dense(plan: Plan, source: Source) -> list[Dense]:
    """The feed-forward of each layer; UnsupportedError for a mixture of experts."""
    parts = [layer.feed_forward for layer in plan.layers]
    found = [part for part in parts if isinstance(part, GatedFeedForward | PlainFeedForward)]
    if len(found) < len(parts):
        raise UnsupportedError(
            f"{source.path}: a mixture of experts. Which experts a token takes decides there which "
            "neurons can fire at all; trit counts and prunes neurons of dense models only."
        )
    return found


def _layer(layer: LayerPass, part: Dense, source: Source, chunks: int) -> LayerNeurons:
    name = part.down.weight
    tally = Tally(layer.index, column_squares(source.tensors[name]))
    for chunk in range(chunks):
        activations, _ = layer.sample(name, range(chunk, chunk + 1))
        tally.add(activations)
    return tally.finish()


def column_squares(tensor: Tensor) -> Doubles:
    """‖W[:, j]‖² of a matrix (rows, cols): float64 (cols,)."""
    stored = tensor.data.reshape(tensor.rows, -1)
    squares = np.zeros(tensor.cols)
    step = max(1, SLAB_WEIGHTS // tensor.cols)
    for first in range(0, tensor.rows, step):
        rows = np.ascontiguousarray(stored[first : first + step])
        weights = _core.decode(tensor.format.name, rows, tensor.cols, engine.isa())
        squares += np.square(weights, out=weights).sum(axis=0, dtype=np.float64)
    return squares
