"""How much the whole model suffers when one tensor does: measured, one tensor at a time.

A text is read by the model; then for each tensor again, with that tensor rounded coarsely and all
others as they are, from its layer on. What the output has moved, KL(model ‖ model with the coarse
tensor) in nats per token, is the tensor's sensitivity. Layers run in order, so that what goes into
a layer is computed once for all the probes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trit import archs, engine, formats
from trit.budget._menu import rounded
from trit.calibrate import plan_for
from trit.calibrate._weights import is_slow, open_layer, weights
from trit.calibrate._weights import rounded as to_q8
from trit.engine import Engine, Rows
from trit.errors import TritError
from trit.evaluate._rows import Scorer
from trit.files._tensor import Tensor
from trit.files.source import Source
from trit.machine.memory import free_memory
from trit.machine.processors import default_threads
from trit.plan import Plan

Floats = NDArray[np.float32]

PASS_ROWS = 256
SLAB_WEIGHTS = 1 << 24  # of a tensor that is made coarse
LOGIT_BYTES = 32 << 20  # of one slice of rows, of one model
ROOM = 0.75  # of the free memory that a copy of the weights may take
HEAD = -1  # stands for a layer: the embedding and the output


@dataclass(frozen=True)
class Coarse:
    """How a tensor is spoiled: rounded to `format`, its errors multiplied by `times`."""

    format: str
    times: float = 1.0


def places(plan: Plan) -> list[tuple[int, list[str]]]:
    """The tensors that can be probed: of each layer, then embedding and output (HEAD)."""
    found = [(index, weights(plan, index)) for index in range(len(plan.layers))]
    return [*found, (HEAD, list(dict.fromkeys((plan.embedding, plan.head.weight))))]


class Prober:
    """A model and a text, ready for probes.

    tokens   int32 (windows, ctx); those of each window from `first` on are scored, every `step`th
    exact    multiply with float weights as floats; else they are rounded to Q8_0 where there is
             room for a copy, many times as fast
    """

    def __init__(
        self,
        source: Source,
        tokens: NDArray[np.int32],
        first: int,
        step: int,
        threads: int | None = None,
        exact: bool = False,
    ) -> None:
        self.windows, self.ctx = tokens.shape
        self.plan = plan_for(source, self.ctx)
        self.threads = threads or default_threads()
        self._path = source.path
        self._tokens = tokens.reshape(-1)
        self._exact = exact
        self._tensors = self._prepared(source)
        self._model = Engine(
            self.plan, self._tensors, self.threads, self.ctx, PASS_ROWS,
        )  # fmt: skip
        inside = np.arange(first, self.ctx, step)
        self._scored = (np.arange(self.windows)[:, None] * self.ctx + inside).reshape(-1)

    @property
    def scored(self) -> int:
        """Positions at which the outputs are compared."""
        return len(self._scored)

    def layers(self, wanted: Mapping[str, Coarse], importance: Mapping[str, Floats]) -> Iterator[
        dict[str, float]
    ]:  # fmt: skip
        """For each place that has wanted tensors: mean KL divergence by tensor, in nats.

        importance   (matrices, cols) of the tensors that have some, for their rounding
        """
        start = self._model.embed(self._tokens.tolist())
        base = self._outputs(start.copy(), 0)
        before = start
        for index, names in places(self.plan):
            todo = [name for name in names if name in wanted]
            if todo:
                yield self._probe(index, todo, wanted, importance, before, base)
            if index != HEAD:
                self._run(self._model, range(index, index + 1), before)

    def mixture(self, tensors: Mapping[str, Tensor]) -> float:
        """Mean KL divergence of the model with all of these in place of its own, in nats."""
        other = Engine(
            self.plan, {**self._tensors, **tensors}, self.threads, self.ctx, PASS_ROWS, repack=False
        )
        base = self._outputs(self._model.embed(self._tokens.tolist()), 0)
        x = other.embed(self._tokens.tolist())
        self._run(other, range(len(self.plan.layers)), x)
        return self._compare(base, [(x[self._scored], other)])[0]

    def coarse(self, name: str, how: Coarse, importance: Floats | None) -> Tensor:
        """The tensor spoiled, in a format that is multiplied fast."""
        tensor = self._tensors[name]
        matrices = 1 if importance is None else len(importance)
        q8 = formats.get("q8_0")
        target = formats.get("f32") if tensor.cols % q8.block_weights or self._exact else q8
        data = np.empty((tensor.rows, target.row_bytes(tensor.cols)), np.uint8)
        rows, step = tensor.rows // matrices, max(1, SLAB_WEIGHTS // tensor.cols)
        for matrix in range(matrices):
            columns = None if importance is None else importance[matrix]
            for first in range(matrix * rows, (matrix + 1) * rows, step):
                part = slice(first, min(first + step, (matrix + 1) * rows))
                exact = tensor.decode_rows(part.start, part.stop)
                values = rounded(exact, how.format, columns, self.threads)
                if how.times != 1.0:
                    values = exact + np.float32(how.times) * (values - exact)
                data[part] = _stored(values, target.name, self.threads)
        return Tensor(name, tensor.shape, target, data.reshape(*tensor.shape[:-1], -1))

    def _prepared(self, source: Source) -> dict[str, Tensor]:
        """The weights in a form that is multiplied fast, if there is room for it."""
        names = dict.fromkeys(name for _, found in places(self.plan) for name in found)
        vectors = archs.vectors(self.plan)
        ready = {name: source.tensors[name] for name in (*names, *vectors)}
        slow = {name: t for name in names if is_slow(t := ready[name])}
        needed = sum(t.rows * t.cols for t in slow.values()) * 34 // 32
        free = free_memory()
        if self._exact or (free is not None and 2 * needed > ROOM * free):
            return ready
        isa = engine.isa()
        quick = {name: to_q8(t, source.path, self.threads, isa) for name, t in slow.items()}
        return ready | quick

    def _probe(
        self,
        index: int,
        names: Sequence[str],
        wanted: Mapping[str, Coarse],
        importance: Mapping[str, Floats],
        before: Floats,
        base: Floats,
    ) -> dict[str, float]:
        moved: list[tuple[Floats, Engine]] = []
        for name in names:
            tensor = self.coarse(name, wanted[name], importance.get(name))
            if index == HEAD:
                moved.append(self._outside(tensor, base))
                continue
            one = open_layer(
                self._path, self.plan, index, {**self._tensors, name: tensor}, ctx=self.ctx,
                batch=PASS_ROWS, threads=self.threads, isa=engine.isa(), exact=True,
            )  # fmt: skip
            x = before.copy()
            self._run(one, range(1), x)
            moved.append((self._outputs(x, index + 1), self._model))
        return dict(zip(names, self._compare(base, moved), strict=True))

    def _outside(self, tensor: Tensor, base: Floats) -> tuple[Floats, Engine]:
        """A probe of the embedding, of the output, or of both where they are one."""
        plan, changed, head = self.plan, base, self._model
        if tensor.name == plan.embedding:
            rows = tensor.data[self._tokens]
            x = np.concatenate([
                tensor.format.decode(np.ascontiguousarray(rows[at : at + PASS_ROWS]))
                for at in range(0, len(rows), PASS_ROWS)
            ])  # fmt: skip
            x *= np.float32(plan.embedding_scale)
            changed = self._outputs(x, 0)
        if tensor.name == plan.head.weight:
            alone = replace(plan, layers=(), embedding=tensor.name, vocab_size=tensor.rows)
            tensors = {**self._tensors, tensor.name: tensor}
            head = Engine(alone, tensors, self.threads, 1, repack=False)
        return changed, head

    def _outputs(self, x: Floats, first: int) -> Floats:
        """What comes out of the last layer at the scored positions; x, before `first`, is lost."""
        self._run(self._model, range(first, len(self.plan.layers)), x)
        found: Floats = x[self._scored]
        return found

    def _run(self, running: Engine, layers: range, x: Floats) -> None:
        """x (tokens, width) through these layers, in place."""
        if not layers:
            return
        for first in range(0, len(x), PASS_ROWS):
            part = slice(first, min(first + PASS_ROWS, len(x)))
            at = np.arange(part.start, part.stop, dtype=np.int64)
            sequences = (at // self.ctx).astype(np.int32)
            batch = Rows(np.zeros(len(at), np.int32), sequences, at % self.ctx)
            values = np.array(x[part])
            for layer in layers:
                running.layer(layer, values, batch)
            x[part] = values
            for done in range(part.start // self.ctx, part.stop // self.ctx):
                running.remove(done)

    def _compare(self, base: Floats, moved: Sequence[tuple[Floats, Engine]]) -> list[float]:
        """Mean KL divergence of each of the outputs from `base`; the logits a slice at a time."""
        vocab = self._model.vocab_size
        step = min(max(LOGIT_BYTES // (4 * vocab), 16), 256)
        sums = np.zeros(len(moved))
        nothing = np.zeros(step, np.int32)
        with Scorer(vocab, self.threads) as scorer:
            for at in range(0, len(base), step):
                part = slice(at, at + step)
                logits = self._model.head(base[part])
                for number, (x, head) in enumerate(moved):
                    other = head.head(x[part])
                    found = scorer.compare(other, logits, nothing[: len(logits)])
                    sums[number] += found[:, 2].sum()
        if not np.isfinite(sums).all():
            raise TritError(
                f"{self._path}: the model's outputs are not finite: its weights are damaged. Make "
                "the file again from its source, or check it with 'trit show'."
            )
        return [max(float(total), 0.0) / len(base) for total in sums]


def _stored(values: Floats, name: str, threads: int) -> NDArray[np.uint8]:
    if name == "f32":
        return values.astype("<f4", copy=False).view(np.uint8).reshape(len(values), -1)
    from trit.quantizers import rtn

    return rtn.quantize(values, name, None, threads)
