"""Plans made by hand over random weights: every part a layer can have, every format, no file.

`head_only` is a plan without layers: its logits are one product, of a norm whose output is known to
the bit. `small_plan` is a model of two layers; parts that no architecture uses yet are in it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from trit import formats
from trit.files.gguf import Tensor
from trit.plan import (
    Attention,
    FeedForward,
    GatedFeedForward,
    Layer,
    Linear,
    MixtureOfExperts,
    Norm,
    PlainFeedForward,
    Plan,
    Rope,
    SharedExpert,
    Stack,
)
from trit.quantizers import rtn
from trit.quantizers._grids import WRITTEN

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Tensors = dict[str, Tensor]

LEAST, MOST = 0.05, 0.3  # the largest weight of a block that is drawn at random


@dataclass(frozen=True)
class Parts:
    """What a small plan is made of. `formats`: of its matrices, in turn."""

    formats: Sequence[str] = ("f32",)
    width: int = 256
    inner: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    vocab: int = 150
    layers: int = 2
    context: int = 512
    window: int | None = None  # of every second layer
    experts: int = 0  # of a mixture in place of each feed-forward; of each `inner` // 2
    top_k: int = 2
    extras: bool = False  # sinks, caps, norms everywhere, biases, adjacent pairs, plain relu²


def matrix(name: str, format_name: str, rows: int, cols: int, seed: int = 0) -> Tensor:
    """Random weights: Gaussian and rounded, or random blocks where the format is only read."""
    format = formats.get(format_name)
    if format_name in WRITTEN:
        values = np.random.default_rng(seed).standard_normal((rows, cols)) / cols**0.5
        data = rtn.quantize(values.astype(np.float32), format_name, threads=1)
    else:
        data = random_blocks(format_name, rows * cols // format.block_weights, seed)
    return Tensor(name, (rows, cols), format, data.reshape(rows, -1))


def random_blocks(format_name: str, count: int, seed: int) -> Bytes:
    """Blocks of random bytes whose largest weight is between LEAST and MOST: (count, bytes)."""
    pool = _pool(format_name)
    return pool[np.random.default_rng(seed).integers(0, len(pool), count)]


@cache
def _pool(format_name: str) -> Bytes:
    """Some different blocks to choose from: of some types hardly any are of the right size."""
    format = formats.get(format_name)
    random = np.random.default_rng(0)
    kept: list[Bytes] = []
    while sum(map(len, kept)) < 100:
        drawn = random.integers(0, 256, (4096, format.block_bytes), dtype=np.uint8)
        with np.errstate(all="ignore"):
            largest = np.abs(format.decode(drawn)).max(axis=1)
            kept.append(drawn[(largest > LEAST) & (largest < MOST)])
    return np.concatenate(kept)


def vector(name: str, values: NDArray[np.floating]) -> Tensor:
    data = np.ascontiguousarray(values, dtype=np.float32).view(np.uint8)
    return Tensor(name, values.shape, formats.get("f32"), data)


def head_only(weights: Tensor, norm: Floats) -> tuple[Plan, Tensors]:
    """logits = weights · (x / rms(x) · norm); where every |x| is 1 that is weights · (x · norm)."""
    rows, cols = weights.rows, weights.cols
    plan = Plan(
        arch="test",
        width=cols,
        vocab_size=rows,
        context_length=64,
        embedding=weights.name,
        layers=(),
        output_norm=Norm("norm", 0.0),
        head=Linear(weights.name, rows, cols),
    )
    return plan, {weights.name: weights, "norm": vector("norm", norm)}


def small_plan(parts: Parts, seed: int = 0) -> tuple[Plan, Tensors]:
    """A plan and its tensors, by name."""
    builder = _Builder(parts, seed)
    layers = tuple(_layer(builder, i) for i in range(parts.layers))
    embedding = builder.linear("embedding", parts.vocab, parts.width).weight
    plan = Plan(
        arch="test",
        width=parts.width,
        vocab_size=parts.vocab,
        context_length=parts.context,
        embedding=embedding,
        layers=layers,
        output_norm=builder.norm("output_norm", parts.width),
        head=builder.linear("head", parts.vocab, parts.width),
        embedding_scale=16.0 if parts.extras else 1.0,
        head_scale=0.75 if parts.extras else 1.0,
        head_soft_cap=20.0 if parts.extras else None,
    )
    return plan, builder.tensors


class _Builder:
    """Names, draws and collects the tensors of a plan."""

    def __init__(self, parts: Parts, seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.tensors: Tensors = {}
        self.matrices = 0

    def linear(self, name: str, rows: int, cols: int, bias: bool = False) -> Linear:
        format_name = self.parts.formats[self.matrices % len(self.parts.formats)]
        self.matrices += 1
        seed = 1000 * self.seed + self.matrices
        self.tensors[name] = matrix(name, format_name, rows, cols, seed)
        return Linear(name, rows, cols, self.random(f"{name}.bias", rows) if bias else None)

    def stack(self, name: str, rows: int, cols: int) -> Stack:
        count = self.parts.experts
        tensor = self.tensors.pop(self.linear(name, count * rows, cols).weight)
        data = tensor.data.reshape(count, rows, -1)
        self.tensors[name] = Tensor(name, (count, rows, cols), tensor.format, data)
        return Stack(name, count, rows, cols)

    def norm(self, name: str, size: int) -> Norm:
        return Norm(self.random(name, size, around=1.0), 1e-5)

    def random(self, name: str, size: int, around: float = 0.0) -> str:
        seed = 1000 * self.seed + 500 + len(self.tensors)
        values = around + 0.3 * np.random.default_rng(seed).standard_normal(size)
        self.tensors[name] = vector(name, values)
        return name


def _layer(make: _Builder, i: int) -> Layer:
    p = make.parts
    extra: Callable[[str, int], Norm | None] = make.norm if p.extras else lambda name, size: None
    queries, keys = p.heads * p.head_dim, p.kv_heads * p.head_dim
    pairs = p.head_dim // 2 - (4 if p.extras else 0)  # the rest of the head does not turn
    turns = tuple(float(10000.0 ** (-j / pairs)) for j in range(pairs))
    mixer = Attention(
        q=make.linear(f"{i}.q", queries, p.width, p.extras),
        k=make.linear(f"{i}.k", keys, p.width),
        v=make.linear(f"{i}.v", keys, p.width, p.extras),
        output=make.linear(f"{i}.output", p.width, queries),
        heads=p.heads,
        kv_heads=p.kv_heads,
        head_dim=p.head_dim,
        scale=p.head_dim**-0.5,
        rope=Rope(turns, "adjacent" if p.extras else "halves", 1.2 if p.extras else 1.0),
        q_norm=extra(f"{i}.q_norm", p.head_dim),
        k_norm=extra(f"{i}.k_norm", p.head_dim),
        window=p.window if i % 2 == 0 else None,
        soft_cap=5.0 if p.extras else None,
        sinks=make.random(f"{i}.sinks", p.heads) if p.extras else None,
        sub_norm=extra(f"{i}.sub_norm", queries),
    )
    return Layer(
        mixer,
        _mixture(make, i) if p.experts else _dense(make, i),
        mixer_norm=make.norm(f"{i}.mixer_norm", p.width),
        mixer_post_norm=extra(f"{i}.mixer_post_norm", p.width),
        feed_forward_norm=make.norm(f"{i}.feed_forward_norm", p.width),
        feed_forward_post_norm=extra(f"{i}.feed_forward_post_norm", p.width),
    )


def _dense(make: _Builder, i: int) -> FeedForward:
    p = make.parts
    up = make.linear(f"{i}.up", p.inner, p.width)
    down = make.linear(f"{i}.down", p.width, p.inner, p.extras)
    if p.extras and i % 2 == 1:
        return PlainFeedForward(up, down, "relu2")
    gate = make.linear(f"{i}.gate", p.inner, p.width)
    norm = make.norm(f"{i}.inner_norm", p.inner) if p.extras else None
    return GatedFeedForward(gate, up, down, "silu" if i % 2 else "gelu", norm)


def _mixture(make: _Builder, i: int) -> MixtureOfExperts:
    """Of two layers the first renormalizes, the second has a shared expert (with extras, gated)."""
    p, inner = make.parts, make.parts.inner // 2
    activation = "silu" if i % 2 else "gelu"
    shared = None
    if i % 2:
        gate = make.linear(f"{i}.shared_share", 1, p.width) if p.extras else None
        parts = [make.linear(f"{i}.shared_{n}", p.inner, p.width) for n in ("gate", "up")]
        down = make.linear(f"{i}.shared_down", p.width, p.inner)
        shared = SharedExpert(GatedFeedForward(*parts, down, activation), gate)
    return MixtureOfExperts(
        router=make.linear(f"{i}.router", p.experts, p.width, p.extras),
        gate=make.stack(f"{i}.gate", inner, p.width),
        up=make.stack(f"{i}.up", inner, p.width),
        down=make.stack(f"{i}.down", p.width, inner),
        top_k=p.top_k,
        activation=activation,
        renormalize=i % 2 == 0,
        scale=1.5 if p.extras else 1.0,
        shared=shared,
    )
