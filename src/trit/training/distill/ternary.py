"""A model of Llama's shape made into the beginning of a BitNet: sub-norms inserted, rope's pairs
laid as BitNet has them.

BitDistill (arXiv:2510.13998) puts a norm before the output and the down projection. Here the norms
begin with the size that their inputs have in the teacher, so that the floats of the beginning say
about what the teacher says; what rounding to ternary breaks then, training heals. llama.cpp knows
the result as `bitnet`, whose gate is SiLU and whose head is the embedding; what does not fit into
that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trit import archs, formats
from trit.errors import UnsupportedError
from trit.files import gguf
from trit.files.gguf import Plain, Value
from trit.files.gguf import Tensor as FileTensor
from trit.files.source import Source
from trit.plan import Attention, GatedFeedForward, Layer, Linear, Norm, Plan
from trit.training.bitnet import ternary
from trit.training.network import Network, matrices

ARCH = "bitnet"
BLOCK = 256  # weights under one scale in both ternary formats

Floats = NDArray[np.float32]


def is_bitnet(plan: Plan) -> bool:
    """Whether a plan has sub-norms already."""
    return all(layer.mixer.sub_norm is not None for layer in plan.layers)


def check(plan: Plan, path: object) -> None:
    """UnsupportedError, with the reason, for a plan that no ternary file can hold."""
    for part in (part for layer in plan.layers for part in archs.linears(layer).values()):
        if part.cols % BLOCK:
            raise UnsupportedError(
                f"{path}: {part.weight} has rows of {part.cols} weights; ternary types need "
                f"multiples of {BLOCK}. Take another model, or a type such as Q4_0."
            )
    if is_bitnet(plan):
        return
    reasons = [reason for layer in plan.layers for reason in _objections(layer)]
    if plan.head.weight != plan.embedding:
        reasons.append("a head of its own")
    if (plan.embedding_scale, plan.head_scale, plan.head_soft_cap) != (1.0, 1.0, None):
        reasons.append("scales or a cap of embedding and head")
    if reasons:
        raise UnsupportedError(
            f"{path}: a ternary student is a BitNet, which has no room for {reasons[0]}. Take a "
            "teacher of Llama's shape whose head is its embedding."
        )


def _objections(layer: Layer) -> list[str]:
    mixer, feed = layer.mixer, layer.feed_forward
    found = {
        "norms of queries and keys": mixer.q_norm or mixer.k_norm,
        "windows": mixer.window,
        "soft caps": mixer.soft_cap,
        "sinks": mixer.sinks,
        "norms behind its parts": layer.mixer_post_norm or layer.feed_forward_post_norm,
        "biases": next((p.bias for p in archs.linears(layer).values() if p.bias), None),
        "rope of another kind": mixer.rope is None
        or 2 * len(mixer.rope.inv_freq) != mixer.head_dim
        or None,
    }
    reasons = [reason for reason, there in found.items() if there is not None]
    if not isinstance(feed, GatedFeedForward) or feed.activation != "silu":
        reasons.append("a gate that is not SiLU's")
    parts = [part.weight for part in archs.linears(layer).values()]
    return [*reasons, "fused matrices"] if len(set(parts)) < len(parts) else reasons


def insert(source: Source, plan: Plan, rows: NDArray[np.int64], out: Path) -> None:
    """Write the float beginning of a BitNet: matrices F32, norms as `rows` (batch, n) of tokens
    need them."""
    if "rope_freqs.weight" in source.tensors:
        raise UnsupportedError(
            f"{source.path}: a ternary student is a BitNet, which has no room for divisors of "
            "rope's frequencies. Take another teacher."
        )
    layers = tuple(_with_sub_norms(i, each) for i, each in enumerate(plan.layers))
    arrays = {name: tensor.decode() for name, tensor in source.tensors.items()}
    for i, layer in enumerate(layers):
        _lay_halves(layer.mixer, arrays)
        arrays |= {name: np.ones(size, np.float32) for name, size in _sub_norms(i, layer)}
    own = replace(plan, layers=tuple(_with_halves(each) for each in layers))
    measuring = _Measuring(own, {name: torch.from_numpy(each) for name, each in arrays.items()})
    with torch.no_grad():
        measuring.hidden(torch.from_numpy(rows))
    for name, size in measuring.sizes.items():
        arrays[name] *= size
    prefix = f"{plan.arch}."
    values: dict[str, Plain | Value] = {
        (f"{ARCH}.{key.removeprefix(prefix)}" if key.startswith(prefix) else key): value
        for key, value in source.values.items()
    }
    values |= {"general.architecture": ARCH}
    write(out, values, arrays)


def write(path: Path, values: Mapping[str, Plain | Value], arrays: Mapping[str, Floats]) -> None:
    """A GGUF of float32 tensors."""
    kind = formats.get("f32")
    tensors = [
        FileTensor(name, each.shape, kind, np.ascontiguousarray(each).view(np.uint8))
        for name, each in arrays.items()
    ]
    gguf.write(path, values, tensors)


def rounded(plan: Plan, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """The same with the layers' matrices ternary: -s, 0 and s."""
    found = dict(arrays)
    for name in matrices(plan):
        digits, unit = ternary(torch.from_numpy(arrays[name]))
        found[name] = (digits * unit).numpy()
    return found


def _with_sub_norms(i: int, layer: Layer) -> Layer:
    feed, eps = layer.feed_forward, layer.mixer_norm.eps if layer.mixer_norm else 1e-5
    assert isinstance(feed, GatedFeedForward), "checked"
    mixer = replace(layer.mixer, sub_norm=Norm(f"blk.{i}.attn_sub_norm.weight", eps))
    feed = replace(feed, sub_norm=Norm(f"blk.{i}.ffn_sub_norm.weight", eps))
    return replace(layer, mixer=mixer, feed_forward=feed)


def _sub_norms(i: int, layer: Layer) -> list[tuple[str, int]]:
    feed = layer.feed_forward
    assert isinstance(feed, GatedFeedForward), "checked"
    outer, inner = layer.mixer.output.cols, feed.down.cols
    return [(f"blk.{i}.attn_sub_norm.weight", outer), (f"blk.{i}.ffn_sub_norm.weight", inner)]


def _with_halves(layer: Layer) -> Layer:
    assert layer.mixer.rope is not None, "checked"
    rope = replace(layer.mixer.rope, pairs="halves")
    return replace(layer, mixer=replace(layer.mixer, rope=rope))


def _lay_halves(mixer: Attention, arrays: dict[str, Floats]) -> None:
    """Rows of q and k, from neighbours that rope turns to halves of a head."""
    assert mixer.rope is not None, "checked"
    if mixer.rope.pairs == "halves":
        return

    def laid(part: Linear) -> None:
        pairs = arrays[part.weight].reshape(-1, mixer.head_dim // 2, 2, part.cols)
        arrays[part.weight] = pairs.swapaxes(1, 2).reshape(part.rows, part.cols).copy()

    laid(mixer.q)
    laid(mixer.k)


class _Measuring(Network):
    """A network whose sub-norms do nothing and note how large what passes them is."""

    def __init__(self, plan: Plan, weights: Mapping[str, Tensor]) -> None:
        super().__init__(plan, weights)
        self.sizes: dict[str, float] = {}

    def _norm(self, norm: Norm | None, x: Tensor) -> Tensor:
        if norm is None or not norm.weight.endswith("sub_norm.weight"):
            return super()._norm(norm, x)
        self.sizes[norm.weight] = float(x.square().mean(dim=-1).sqrt().mean())
        return x
