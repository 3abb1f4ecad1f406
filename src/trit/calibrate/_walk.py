"""All tokens of a text through one layer, then through the next.

A layer's weights are read once, so a model may be larger than memory: what is held is one layer,
its cache for the pieces under way, and the hidden states of the text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trit import _core
from trit import engine as engines
from trit.calibrate._hidden import Hidden
from trit.calibrate._inputs import Collector, Doubles, Floats, Inputs, Ints, gram_bytes, shared
from trit.calibrate._model import Model, plan_for
from trit.calibrate._weights import open_layer, vectors, weights
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, TritError, UsageError
from trit.files._mapping import forget
from trit.files._tensor import Tensor
from trit.machine.memory import free_memory
from trit.machine.processors import default_threads
from trit.plan import Layer, MixtureOfExperts, Plan

MEMORY = 1 << 30  # bytes of hidden states that stay in memory
PASS_ROWS = 256  # rows of a pass: as quick as more, and what they need stays in the caches
LONG = 4.0  # times the usual length: a hidden state that others attend to, whatever they are
MOST_ROWS = 2048  # of a mixture, whose experts see a part of the rows each

OnProgress = Callable[[str, int, int], None]  # what, tokens' worth of work done, and in all


class LayerPass:
    """A layer with the whole text before and behind it.

    index    of the layer
    plan     its part of the plan
    inputs   statistics of what its linears were multiplied with, in running order; gone, as all
             else, when the walk goes on
    """

    def __init__(self, walk: _Walk, index: int, inputs: tuple[Inputs, ...]) -> None:
        self.index = index
        self.plan: Layer = walk.plan.layers[index]
        self.inputs = inputs
        self._walk = walk

    def of(self, name: str) -> Inputs:
        """The statistics of the weight of that name. KeyError if it is not in this layer."""
        for inputs in self.inputs:
            if name in inputs.names:
                return inputs
        raise KeyError(name)

    @property
    def hidden(self) -> Floats:
        """What goes into the layer, float32 (tokens, width), read-only."""
        return _read_only(self._walk.hidden.before)

    @property
    def outputs(self) -> Floats:
        """What comes out of it with the weights of the last run, (tokens, width), read-only."""
        return _read_only(self._walk.hidden.after)

    def sample(self, name: str, chunks: range) -> tuple[Floats, Ints | None]:
        """The inputs of one weight for the tokens of some chunks, with the weights of the last run.

        (tokens, cols) and None; of a stack of experts (tokens, top_k, cols), each for the expert
        of that place in (tokens, top_k).
        """
        return self._walk.sample(name, chunks)

    def replace(self, tensors: Mapping[str, Tensor], gram: bool = False) -> tuple[Inputs, ...]:
        """Run the text through the layer again with these weights in place of the model's own.

        What comes out now goes into the next layer. `tensors`: some of the layer's matrices and
        vectors, by name, in any format the engine runs; returns the statistics of this run.
        UsageError for a tensor that is not in the layer or has another shape.
        """
        return self._walk.run(self.index, tensors, gram)


def walk(
    model: Model,
    tokens: NDArray[np.int32],
    *,
    gram: bool = False,
    sinks: float = 1.0,
    exact: bool = False,
    threads: int | None = None,
    memory: int = MEMORY,
    folder: str | os.PathLike[str] | None = None,
    ready: Callable[[int], Mapping[str, Tensor]] | None = None,
    begin: tuple[int, Floats] | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[LayerPass]:
    """Send a text through a model layer by layer, and stop after each with its statistics.

        for layer in walk(model, data.tokens, gram=True):
            quantized = {name: gptq(layer.of(name).gram, …) for name in …}
            layer.replace(quantized)     # the next layer sees what the quantized prefix gives

    Without `replace` every layer sees what the model itself gives; two walks side by side (`zip`)
    give both.

    tokens       int32 (chunks, ctx): sequences that do not see each other
    gram         also sum the Gram matrices of the inputs, one of cols × cols floats for each
    sinks        how much Gram matrices make of tokens that all others attend to: the first of each
                 chunk, and those of a hidden state several times as long as usual
    exact        multiply with float weights as floats; else they are rounded to Q8_0 on the way,
                 three times as fast
    threads      None: those the process may use. They change no bit of any result
    memory       bytes that hidden states may take in memory; more are mapped from a file in
                 `folder` (None: the system's for temporary files), which always vanishes
    ready        tells what weights of a layer are replaced already, as `replace` has them: where
                 there are any, the layer is run once, with those, and without Gram matrices
    begin        the layer to begin with, and what goes into it, float32 (tokens, width), as an
                 earlier walk had it in `hidden`; None: with the first, and the tokens
    on_progress  called with (what, done, total): in tokens' worth of the whole work

    Errors: UsageError (tokens the model does not have), DoesNotFitError (a chunk is longer than the
    model's context; no room for Gram matrices or hidden states), InvalidFileError (a weight that is
    no number), UnsupportedError, TritError (an activation that is no number).
    """
    state = _Walk(model, tokens, sinks, exact, threads, memory, folder, on_progress)
    try:
        first, hidden = begin or (0, None)
        if hidden is None:
            state.embed(tokens)
        else:
            state.hidden.before[:] = hidden
        del begin, hidden  # they may be mapped from a file that takes room until it is let go
        for index in range(first, len(state.plan.layers)):
            known = ready(index) if ready else {}
            found = state.run(index, known, gram and not known, report=True)
            layer = LayerPass(state, index, found)
            yield layer
            layer.inputs = ()  # whoever still holds it shall not hold two layers' matrices
            state.next_layer()
    finally:
        state.close()


class _Walk:
    def __init__(
        self,
        model: Model,
        tokens: NDArray[np.int32],
        sinks: float,
        exact: bool,
        threads: int | None,
        memory: int,
        folder: str | os.PathLike[str] | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.model, self.exact, self.sinks = model, exact, sinks
        self.threads = threads or default_threads()
        self.isa = engines.isa()
        self.chunks, self.ctx = tokens.shape
        self.plan = plan_for(model, self.ctx)
        self._report = on_progress or (lambda what, done, total: None)
        _check_tokens(self.plan, tokens)
        count = self.chunks * self.ctx
        self.hidden = Hidden(count, self.plan.width, memory, folder)
        self._engine: Engine | None = None
        self._layer = 0

    def embed(self, tokens: NDArray[np.int32]) -> None:
        """What goes into the first layer."""
        _embed(self.model, self.plan, tokens.reshape(-1), self.hidden.before, self.isa)

    def run(
        self, index: int, replaced: Mapping[str, Tensor], gram: bool, report: bool = False
    ) -> tuple[Inputs, ...]:
        """All tokens through layer `index`, from `hidden.before` to `hidden.after`."""
        if gram:
            _check_room(index, self.plan.layers[index])
        self._open(index, replaced)
        layer = self.plan.layers[index]
        assert self._engine is not None
        collectors = [Collector(inputs, gram, self._engine) for inputs in shared(layer)]
        taps = [each.name for each in collectors] if gram else []
        squares = {each.name: each.sums for each in collectors}
        total = len(self.hidden.before)
        attended = self._attended() if gram and self.sinks != 1.0 else None
        for part, inputs, experts in self._passes(range(0, total), taps, squares):
            if attended is not None:
                rows = np.flatnonzero(attended[part.start : part.stop])
                for x in inputs.values():
                    x[rows] *= np.float32(self.sinks**0.5)
            for each in collectors:
                each.add(len(part), inputs.get(each.name), experts)
            if report:
                done = index * total + part.stop
                self._report("measuring", done // len(self.plan.layers), total)
        found = tuple(collector.finish() for collector in collectors)
        for statistics in found:
            self._require_numbers(index, statistics)
        if not np.isfinite(self.hidden.after).all():
            name = weights(self.plan, index)[-1]
            raise self._not_finite(index, f"what the layer gives, the last of it by {name!r},")
        return found

    def _attended(self) -> NDArray[np.bool_]:
        """The tokens whose keys and values weigh in the sums of most others."""
        length = np.sqrt(np.einsum("ij,ij->i", self.hidden.before, self.hidden.before))
        found: NDArray[np.bool_] = length > LONG * np.median(length)
        found[:: self.ctx] = True
        return found

    def sample(self, name: str, chunks: range) -> tuple[Floats, Ints | None]:
        """See LayerPass.sample."""
        assert chunks.step == 1, "chunks that follow each other"
        rows = range(chunks.start * self.ctx, min(chunks.stop, self.chunks) * self.ctx)
        stack = any(
            name in each.names and each.matrices > 1
            for each in shared(self.plan.layers[self._layer])
        )
        parts = list(self._passes(rows, [name]))
        inputs = np.concatenate([found[name] for _, found, _ in parts])
        chosen = [experts for _, _, experts in parts if experts is not None]
        return inputs, np.concatenate(chosen) if stack else None

    def next_layer(self) -> None:
        """What came out goes into the next layer; nothing of this one is kept."""
        self._engine = None
        forget()
        self.hidden.swap()

    def close(self) -> None:
        """Let go of everything."""
        self._engine = None
        self.hidden.close()

    def _open(self, index: int, replaced: Mapping[str, Tensor]) -> None:
        self._engine, self._layer = None, index  # the old one first: one layer is held
        known = {*weights(self.plan, index), *vectors(self.plan, index)}
        for name, tensor in replaced.items():
            if name not in known:
                raise UsageError(f"tensor {name!r} is not in layer {index}.")
            if tensor.shape != self.model.tensors[name].shape:
                raise UsageError(
                    f"tensor {name!r}: expected shape {self.model.tensors[name].shape}, got "
                    f"{tensor.shape}."
                )
        self._engine = open_layer(
            self.model.path, self.plan, index, {**self.model.tensors, **replaced},
            ctx=self.ctx, batch=PASS_ROWS, threads=self.threads, isa=self.isa, exact=self.exact,
        )  # fmt: skip

    def _passes(
        self,
        rows: range,
        taps: Sequence[str],
        squares: Mapping[str, Doubles] | None = None,
    ) -> Iterator[tuple[range, dict[str, Floats], Ints | None]]:
        """Runs rows of `hidden.before`, which begin and end with a chunk, a pass at a time.

        Yields the rows, the tapped inputs and the chosen experts. With `squares`, which take those
        of inputs, what comes out is written to `hidden.after`.
        """
        assert self._engine is not None
        mixture = self.plan.layers[self._layer].feed_forward
        top_k = mixture.top_k if isinstance(mixture, MixtureOfExperts) else None
        step = _pass_rows(self.plan.layers[self._layer])
        for start in range(rows.start, rows.stop, step):
            part = range(start, min(start + step, rows.stop))
            at = np.arange(part.start, part.stop, dtype=np.int64)
            sequences = (at // self.ctx).astype(np.int32)
            x = np.array(self.hidden.before[part.start : part.stop])
            experts = None if top_k is None else np.empty((len(part), top_k), np.int32)
            batch = Rows(np.zeros(len(part), np.int32), sequences, at % self.ctx)
            inputs = self._engine.layer(0, x, batch, taps, experts, squares)
            for done in range(part.start // self.ctx, part.stop // self.ctx):
                self._engine.remove(done)
            if squares is not None:
                self.hidden.after[part.start : part.stop] = x
            yield part, inputs, experts

    def _require_numbers(self, index: int, inputs: Inputs) -> None:
        bad = ~np.isfinite(inputs.sums)
        if bad.any():
            matrix, column = np.unravel_index(int(bad.argmax()), bad.shape)
            expert = f" of expert {matrix}" if len(bad) > 1 else ""
            what = f"column {column} of the inputs{expert} of tensor {inputs.names[0]!r}"
            raise self._not_finite(index, what)

    def _not_finite(self, index: int, what: str) -> TritError:
        return TritError(
            f"{self.model.path}: layer {index}: {what} is not finite: weights of this layer or of "
            "one before it are damaged, or too large for float16 keys and values. Make the file "
            "again from its source, or check it with 'trit show'."
        )


def _check_tokens(plan: Plan, tokens: NDArray[np.int32]) -> None:
    if tokens.size == 0:
        raise UsageError("the text is empty: there is nothing to measure.")
    bad = (tokens < 0) | (tokens >= plan.vocab_size)
    if bad.any():
        raise UsageError(
            f"token {tokens[bad][0]} is not in the vocabulary; ids are below {plan.vocab_size}."
        )


def _check_room(index: int, layer: Layer) -> None:
    needed, free = gram_bytes(layer), free_memory()
    if free is not None and needed > free:
        raise DoesNotFitError(
            f"the Gram matrices of layer {index} need {needed:,} bytes of memory, {free:,} are "
            "free. Do without them, or use a larger machine."
        )


def _pass_rows(layer: Layer) -> int:
    """Rows of a pass; more for a mixture, that each expert has enough of them."""
    part = layer.feed_forward
    if not isinstance(part, MixtureOfExperts):
        return PASS_ROWS
    return min(MOST_ROWS, PASS_ROWS * part.router.rows // part.top_k)


def _embed(model: Model, plan: Plan, tokens: NDArray[np.int32], out: Floats, isa: str) -> None:
    """Tokens (n,) to hidden states (n, width), as `Engine.embed` gives them."""
    table = model.tensors[plan.embedding]
    stored = table.data.reshape(table.rows, -1)
    step = 4096
    for first in range(0, len(tokens), step):
        rows = np.ascontiguousarray(stored[tokens[first : first + step]])
        part = _core.decode(table.format.name, rows, table.cols, isa)
        part *= np.float32(plan.embedding_scale)
        out[first : first + step] = part
    forget()


def _read_only(array: Floats) -> Floats:
    view = array.view()
    view.flags.writeable = False
    return view
