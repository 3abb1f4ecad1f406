"""The compiled core behind a small Python face: runs a plan on quantized weights.

Weights stay where they are (the mmap of their file). A batch is rows of (sequence, position,
token), so a prompt, a step of decoding and many users are one thing; logits are bit-identical for
any thread count, batch composition and chunking.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trit import _core
from trit.errors import DoesNotFitError, UnsupportedError, UsageError
from trit.machine.memory import free_memory
from trit.machine.processors import MAX_THREADS, default_threads
from trit.plan import (
    Attention,
    FeedForward,
    GatedFeedForward,
    Linear,
    MixtureOfExperts,
    Norm,
    PlainFeedForward,
    Plan,
    Rope,
)

if TYPE_CHECKING:
    from trit.files._tensor import Tensor

Float32 = NDArray[np.float32]
_COPIED_SHARE = 0.75  # of the free memory that a copy of the weights may take
BATCH = 256  # rows per pass: large enough for the int8 units, small enough for the caches
CACHE_TYPES = ("f32", "f16", "q8_0")  # that keys and values may be kept in
PAGE = _core.page_positions  # of the cache
GRAM_BLOCK = _core.moment_block  # squares on the diagonal that `add_gram` fills whole
TERNARY_PATHS = ("dot", "add")  # of the products of ternary weights
_ADDABLE = {row["name"] for row in _core.formats() if row["adds"]}


def isa() -> str:
    """The instruction set in use: TRIT_ISA, or the best this machine has."""
    chosen = os.environ.get("TRIT_ISA", "")
    available = _core.isas()
    if chosen and chosen not in available:
        raise UsageError(f"TRIT_ISA={chosen}: this machine has {', '.join(available)}.")
    return chosen or str(available[0])


@cache
def build() -> str:
    """A name of the compiled core, the same for the same bytes: another one may round otherwise."""
    return hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()[:16]


def ternary_path() -> str:
    """How ternary weights are multiplied: TRIT_TERNARY, by int8 dots ("dot") unless it is set, or
    by additions alone ("add"). Logits are the same bits."""
    chosen = os.environ.get("TRIT_TERNARY") or TERNARY_PATHS[0]
    if chosen not in TERNARY_PATHS:
        raise UsageError(f"TRIT_TERNARY={chosen}: expected {' or '.join(TERNARY_PATHS)}.")
    return chosen


def _is_mapped(data: NDArray[np.uint8]) -> bool:
    """Whether an array views a file's mapping, whose pages can be given back and read again."""
    owner: object = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap)


def _has_room(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a copy of the weights fits well into the memory that is free."""
    copied = sum(tensor.nbytes for tensor in tensors.values())
    return copied <= (free_memory() or 0) * _COPIED_SHARE


class _Weights:
    """Registers tensors with the core, each once, and keeps their bytes alive."""

    def __init__(self, tensors: Mapping[str, Tensor], isa_name: str, ternary: str) -> None:
        self.model = _core.Model()
        self.ternary: str | None = None  # the path that some of the weights take
        self.handles: dict[str, int] = {}
        self._tensors = tensors
        self._isa, self._path = isa_name, ternary
        self._alive: list[NDArray[np.uint8]] = []

    def handle(self, name: str) -> int:
        if name not in self.handles:
            tensor = self._tensors[name]
            data = np.ascontiguousarray(tensor.data).reshape(tensor.rows, -1)
            if data.dtype != np.uint8:
                data = data.view(np.uint8)
            self._alive.append(data)
            ternary = tensor.format.name in _ADDABLE
            try:
                handle = self.model.add_weight(
                    self._isa, tensor.format.name, data, tensor.cols, _is_mapped(data),
                    ternary and self._path == "add",
                )  # fmt: skip
            except ValueError as error:
                raise UnsupportedError(
                    f"tensor '{name}' ({tensor.format.name}): {error}. Requantize it to a type "
                    "the engine runs, q8_0 for example."
                ) from error
            self.handles[name] = handle
            self.ternary = self._path if ternary else self.ternary
        return self.handles[name]

    def vector(self, name: str) -> Float32:
        return np.ascontiguousarray(self._tensors[name].decode(), dtype=np.float32).reshape(-1)

    def linear(self, linear: Linear) -> _core.Linear:
        bias = None
        if linear.bias is not None:
            bias, rows = self.vector(linear.bias), self._tensors[linear.weight].rows
            if len(bias) != rows:
                raise UnsupportedError(
                    f"tensor '{linear.bias}': expected an entry per row of '{linear.weight}', "
                    f"{rows}, got {len(bias)}. The file is damaged: fetch or convert it again."
                )
            bias = bias[linear.row_start : linear.row_start + linear.rows]
        return _core.Linear(self.handle(linear.weight), linear.row_start, linear.rows, bias)

    def norm(self, norm: Norm) -> _core.Norm:
        return _core.Norm(self.vector(norm.weight), norm.eps)

    def optional_norm(self, norm: Norm | None) -> _core.Norm | None:
        return None if norm is None else self.norm(norm)

    def rope(self, rope: Rope | None, known: dict[Rope, int]) -> int:
        if rope is None:
            return -1
        if rope not in known:
            frequencies = np.array(rope.inv_freq, dtype=np.float32)
            adjacent = rope.pairs == "adjacent"
            known[rope] = self.model.add_rope(_core.Rope(frequencies, adjacent, rope.magnitude))
        return known[rope]


def _attention(weights: _Weights, mixer: Attention, ropes: dict[Rope, int]) -> _core.Attention:
    out = _core.Attention()
    out.q, out.k = weights.linear(mixer.q), weights.linear(mixer.k)
    out.v, out.output = weights.linear(mixer.v), weights.linear(mixer.output)
    out.heads, out.kv_heads, out.head_dim = mixer.heads, mixer.kv_heads, mixer.head_dim
    out.scale = mixer.scale
    out.rope = weights.rope(mixer.rope, ropes)
    out.q_norm, out.k_norm = (
        weights.optional_norm(mixer.q_norm),
        weights.optional_norm(mixer.k_norm),
    )
    out.sub_norm = weights.optional_norm(mixer.sub_norm)
    out.window = mixer.window or 0
    out.soft_cap = mixer.soft_cap or 0.0
    if mixer.sinks is not None:
        out.sinks = weights.vector(mixer.sinks).tolist()
    return out


def _feed_forward(weights: _Weights, ff: FeedForward) -> _core.FeedForward | _core.MixtureOfExperts:
    return _mixture(weights, ff) if isinstance(ff, MixtureOfExperts) else _dense(weights, ff)


def _dense(weights: _Weights, ff: GatedFeedForward | PlainFeedForward) -> _core.FeedForward:
    out = _core.FeedForward()
    if isinstance(ff, GatedFeedForward):
        out.gate = weights.linear(ff.gate)
        out.sub_norm = weights.optional_norm(ff.sub_norm)
    out.up, out.down = weights.linear(ff.up), weights.linear(ff.down)
    out.activation = getattr(_core.Activation, ff.activation)
    return out


def _mixture(weights: _Weights, mixture: MixtureOfExperts) -> _core.MixtureOfExperts:
    out = _core.MixtureOfExperts()
    out.router = weights.linear(mixture.router)
    out.gate, out.up, out.down = (
        weights.handle(stack.weight) for stack in (mixture.gate, mixture.up, mixture.down)
    )
    out.top_k, out.scale = mixture.top_k, mixture.scale
    out.renormalize = mixture.renormalize
    out.activation = getattr(_core.Activation, mixture.activation)
    if mixture.shared is not None:
        out.shared = _dense(weights, mixture.shared.part)
        if mixture.shared.gate is not None:
            out.shared_gate = weights.linear(mixture.shared.gate)
    return out


def _build(plan: Plan, weights: _Weights) -> _core.Model:
    model = weights.model
    ropes: dict[Rope, int] = {}
    model.width = plan.width
    model.embedding = weights.handle(plan.embedding)
    model.embedding_scale = plan.embedding_scale
    for layer in plan.layers:
        out = _core.Layer()
        out.mixer = _attention(weights, layer.mixer, ropes)
        out.feed_forward = _feed_forward(weights, layer.feed_forward)
        out.mixer_norm = weights.optional_norm(layer.mixer_norm)
        out.mixer_post_norm = weights.optional_norm(layer.mixer_post_norm)
        out.feed_forward_norm = weights.optional_norm(layer.feed_forward_norm)
        out.feed_forward_post_norm = weights.optional_norm(layer.feed_forward_post_norm)
        model.add_layer(out)
    model.output_norm = weights.norm(plan.output_norm)
    model.head = weights.linear(plan.head)
    model.head_scale = plan.head_scale
    model.head_soft_cap = plan.head_soft_cap or 0.0
    return model


@dataclass(frozen=True)
class Rows:
    """A batch: one entry per row. `tokens` and `sequences` int32, `positions` int64, all (n,)."""

    tokens: NDArray[np.int32]
    sequences: NDArray[np.int32]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, tokens: Sequence[int], start: int = 0, sequence: int = 0) -> Rows:
        """Consecutive positions of one sequence from `start`."""
        n = len(tokens)
        return cls(
            np.asarray(tokens, dtype=np.int32),
            np.full(n, sequence, dtype=np.int32),
            np.arange(start, start + n, dtype=np.int64),
        )


class CacheFullError(DoesNotFitError):
    """Every position that the cache has for all sequences together is held. Nothing was run."""


class WindowDroppedError(UsageError):
    """Layers with a window have let go of what a position to go on at would see. Nothing was run.

    `remove` the sequence and run its tokens again.
    """


class Engine:
    """Runs a plan over its tensors.

    `ctx`: positions kept per sequence (None: the model's own). `threads` (None: those the process
    may use). `batch`: rows per pass; changes speed and memory, never a result. `cache_positions`:
    most of all sequences together, in pages of PAGE (None: no bound); a page that sequences share
    counts once. `repack`: the first pass copies the quantized weights into an order that is read
    faster, and gives the file's pages back; else every pass reads the mapped file (None: copy if
    there is room for it). `cache_type`: what keys and values are kept in, of CACHE_TYPES; q8_0
    takes 0.53 of the memory of f16 and changes the logits a little, f32 twice as much.

    Layers with a window keep the pages that the rows to come can see, those of `batch` positions
    more, and let go of those before. A sequence can then go on at `keeps_from` or later, or be
    removed and run again; anything between is refused (WindowDroppedError), so what was let go of
    never reaches a result.

    Raises UnsupportedError for a plan or type the core cannot run.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        threads: int | None = None,
        ctx: int | None = None,
        batch: int = BATCH,
        cache_positions: int | None = None,
        cache_type: str = "f16",
        repack: bool | None = None,
    ) -> None:
        if cache_type not in CACHE_TYPES:
            raise UsageError(f"--cache-type {cache_type}: expected {', '.join(CACHE_TYPES)}.")
        if cache_positions is not None and cache_positions < 1:
            raise UsageError(f"cache_positions is {cache_positions}; expected 1 or more.")
        pages = -(-cache_positions // PAGE) if cache_positions else 0
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"--threads {threads}: expected a number from 1 to {MAX_THREADS}.")
        self.plan = plan
        self.cache_type = cache_type
        self.batch = batch
        self.ctx = ctx or plan.context_length
        self._weights = _Weights(tensors, isa(), ternary_path())
        try:
            self._decoder = _core.Decoder(
                _build(plan, self._weights), isa(), threads or default_threads(), self.ctx, pages,
                batch, getattr(_core.CacheType, cache_type),
                _has_room(tensors) if repack is None else repack,
            )  # fmt: skip
        except ValueError as error:
            raise UnsupportedError(f"the engine cannot run this model: {error}.") from error
        except RuntimeError as error:
            raise DoesNotFitError(f"{error}. Choose a smaller --threads.") from error

    @property
    def isa(self) -> str:
        return str(self._decoder.isa)

    @property
    def ternary(self) -> str | None:
        """How ternary weights are multiplied, of TERNARY_PATHS; None where there are none."""
        return self._weights.ternary

    @property
    def threads(self) -> int:
        return int(self._decoder.threads)

    @property
    def vocab_size(self) -> int:
        return self.plan.head.rows

    def forward(self, rows: Rows, outputs: Sequence[int] | None = None) -> Float32:
        """Logits (k, vocab) of the rows listed in `outputs` (ascending; None: the last row)."""
        chosen = [len(rows.tokens) - 1] if outputs is None else outputs
        out = np.empty((len(chosen), self.vocab_size), dtype=np.float32)
        self._run(rows, chosen, True, out)
        return out

    def hidden(self, rows: Rows, outputs: Sequence[int] | None = None) -> Float32:
        """What `head` takes, (k, width), of the rows listed in `outputs` (None: all)."""
        chosen = range(len(rows.tokens)) if outputs is None else outputs
        out = np.empty((len(chosen), self.plan.width), dtype=np.float32)
        self._run(rows, chosen, False, out)
        return out

    def _run(self, rows: Rows, outputs: Sequence[int], logits: bool, out: Float32) -> None:
        chosen = np.asarray(outputs, dtype=np.int32)
        with self._errors():
            self._decoder.forward(rows.tokens, rows.sequences, rows.positions, chosen, logits, out)

    def embed(self, tokens: Sequence[int]) -> Float32:
        """Hidden states (n, width) before the first layer."""
        out = np.empty((len(tokens), self.plan.width), dtype=np.float32)
        with self._errors():
            self._decoder.embed(np.asarray(tokens, dtype=np.int32), out)
        return out

    def layer(
        self,
        index: int,
        hidden: Float32,
        rows: Rows,
        taps: Sequence[str] = (),
        experts: NDArray[np.int32] | None = None,
        squares: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> dict[str, Float32]:
        """Runs layer `index` on hidden (n, width) in place.

        `taps`: names of weights; returns the inputs (n, cols) each of them was multiplied with, of
        a stack of experts (n, top_k, cols). `experts` (n, top_k) takes the numbers of those
        experts, ascending in each row.
        `squares`: by name, float64 (1, cols), of a stack (experts, cols), to which the squares of
        the inputs are added, row after row: no bit depends on threads, or on where a batch is cut.
        """
        handles = {name: self._weights.handles[name] for name in taps}
        inputs = {name: self._tapped(index, name, len(hidden)) for name in taps}
        with self._errors():
            self._decoder.layer(
                index, hidden, rows.sequences, rows.positions,
                [(handles[name], inputs[name].reshape(len(hidden), -1)) for name in taps],
                [(self._weights.handles[name], sums) for name, sums in (squares or {}).items()],
                experts,
            )  # fmt: skip
        return inputs

    def _tapped(self, index: int, name: str, rows: int) -> Float32:
        """Room for the inputs of a weight."""
        tensor, part = self._weights._tensors[name], self.plan.layers[index].feed_forward
        if len(tensor.shape) == 3 and isinstance(part, MixtureOfExperts):
            return np.empty((rows, part.top_k, tensor.cols), np.float32)
        return np.empty((rows, tensor.cols), np.float32)

    def add_gram(self, x: Float32, gram: Float32) -> None:
        """gram += xᵀ x for x (n, cols), in the upper triangle of gram (cols, cols), diagonal
        included; what is changed below it lies within GRAM_BLOCK columns of the diagonal.

        Sums are float32, over 64 rows, then of those, then with what was there; no bit of them
        depends on the threads.
        """
        with self._errors():
            self._decoder.add_gram(x, gram)

    def head(self, hidden: Float32) -> Float32:
        """Logits (n, vocab) of hidden states (n, width) behind the last layer."""
        out = np.empty((len(hidden), self.vocab_size), dtype=np.float32)
        with self._errors():
            self._decoder.head(np.ascontiguousarray(hidden), out)
        return out

    def normed(self, hidden: Float32) -> Float32:
        """Hidden states (n, width) behind the last layer, through the output norm: what the matrix
        of the head takes, and what other libraries call the last hidden state."""
        norm = self.plan.output_norm
        squares = np.square(hidden, dtype=np.float64).mean(axis=-1, keepdims=True)
        scaled = hidden / np.sqrt(squares + norm.eps) * self._weights.vector(norm.weight)
        return np.asarray(scaled, np.float32)

    def length(self, sequence: int = 0) -> int:
        """Positions the cache holds of a sequence."""
        return int(self._decoder.length(sequence))

    def remove(self, sequence: int = 0, from_position: int = 0) -> None:
        """Forgets the positions of a sequence from `from_position` on, 0: the sequence.

        WindowDroppedError for a position above 0 and before `keeps_from`.
        """
        with self._errors():
            self._decoder.remove(sequence, from_position)

    def fork(self, source: int, target: int, count: int) -> None:
        """Let `target` hold the first `count` positions of `source`, not what it held before.

        Pages are shared until one of the two writes into them. DoesNotFitError if `source` holds
        fewer positions, WindowDroppedError for a count above 0 and below `keeps_from`.
        """
        with self._errors():
            self._decoder.fork(source, target, count)

    def page_bytes(self) -> tuple[int, ...]:
        """Bytes of a page in each group of layers that have one window."""
        return tuple(self._decoder.page_bytes())

    def first_pages(self, sequence: int) -> tuple[int, ...]:
        """The first page that each group holds of a sequence that holds something."""
        return tuple(self._decoder.first_pages(sequence))

    def read_pages(self, sequence: int) -> Iterator[NDArray[np.uint8]]:
        """Copies of the pages (bytes,) of a sequence: each group's from `first_pages` on."""
        for group, (size, first) in enumerate(
            zip(self.page_bytes(), self.first_pages(sequence), strict=True)
        ):
            for page in range(first, self._decoder.pages(sequence)):
                copied = np.empty(size, np.uint8)
                self._decoder.copy_page(sequence, group, page, copied, False)
                yield copied

    def restore(
        self,
        sequence: int,
        length: int,
        first: Sequence[int],
        pages: Iterator[NDArray[np.uint8]],
    ) -> None:
        """Let `sequence`, which holds nothing, hold `length` positions whose pages another engine
        of the same model, type of cache and instruction set has read by `read_pages`.

        UsageError for what no sequence can hold, DoesNotFitError where there is no room; whatever
        `pages` raises is raised, too, and then the sequence holds nothing.
        """
        with self._errors():
            self._decoder.restore(sequence, length, list(first))
            try:
                for group, (size, begin) in enumerate(zip(self.page_bytes(), first, strict=True)):
                    for page in range(begin, -(-length // PAGE)):
                        copied = next(pages, None)
                        if copied is None or copied.size != size:
                            raise ValueError(f"page {page} of group {group} has other bytes")
                        self._decoder.copy_page(sequence, group, page, copied, True)
            except BaseException:
                self._decoder.remove(sequence, 0)
                raise

    def keeps_from(self, sequence: int = 0) -> int:
        """The first position at which a sequence can go on; 0 where nothing was let go of.

        At least `batch` positions before the first row of the last pass: drafts, and what an
        interrupted pass has written, can always be taken back.
        """
        return int(self._decoder.keeps_from(sequence))

    def tile_bytes(self) -> int:
        """Bytes of the copy of the weights, 0 where every pass reads the file."""
        return int(self._decoder.tile_bytes())

    def mapped_bytes(self) -> int:
        """Bytes of weights that passes read from the mapped file: all, or those not copied."""
        mapped = sum(data.nbytes for data in self._weights._alive if _is_mapped(data))
        return max(0, mapped - self.tile_bytes())

    def cache_bytes(self) -> int:
        """Bytes of KV cache allocated now; what sequences share counts once."""
        return int(self._decoder.cache_bytes())

    def cache_pages(self) -> int:
        """Pages of PAGE positions that sequences hold now; what they share counts once."""
        return int(self._decoder.pages_used())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _core.CacheFullError as error:
            raise CacheFullError(
                f"{error}. Remove sequences, or choose more cache positions."
            ) from error
        except _core.WindowDroppedError as error:
            raise WindowDroppedError(f"{error}. Remove it and run its tokens again.") from error
        except IndexError as error:
            raise DoesNotFitError(f"{error}. Choose a larger --ctx-size.") from error
        except ValueError as error:
            raise UsageError(str(error)) from error
