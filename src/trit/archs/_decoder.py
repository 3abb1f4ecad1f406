"""The plan of a decoder-only transformer: what the families share.

An arch file says in `Traits` how its family differs; here the sizes are read and checked, every
tensor's shape is compared with what the sizes ask for, and the layers are put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trit.archs import _experts, _rope, _tensors, _windows
from trit.archs._fields import MAX_HEAD_DIM, Fields, is_list
from trit.archs._tensors import Tensors
from trit.errors import InvalidFileError, UnsupportedError
from trit.plan import Activation, Attention, FeedForward, GatedFeedForward, Layer, Norm, Plan, Rope

Shapes = _tensors.Shapes


@dataclass(frozen=True)
class Sizes:
    """Checked hyper-parameters; the tuples have one value per layer."""

    layers: int
    width: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_dim: int
    feed_forward: tuple[int, ...]
    context_length: int
    eps: float
    vocab: int


@dataclass(frozen=True)
class Traits:
    """How a family differs from plain llama; the tuples have one value per layer."""

    ropes: tuple[Rope, ...]
    windows: tuple[int | None, ...]
    attention_scale: float
    activation: Activation = "silu"
    head_norms: bool = False
    post_norms: bool = False
    sub_norms: bool = False
    attention_soft_cap: float | None = None
    embedding_scale: float = 1.0
    head_soft_cap: float | None = None
    experts: _experts.Experts | None = None


def read_sizes(keys: Fields, shapes: Shapes) -> Sizes:
    """The sizes of a decoder, each checked against the others and against the tensors."""
    _refuse_what_no_plan_has(keys)
    # No tensor, no layer: a block count beyond the tensors is refused before anything is built.
    layers = keys.count("block_count", high=max(1, len(shapes)))
    width = keys.count("embedding_length")
    heads = keys.per_layer("attention.head_count", layers)
    kv_heads = keys.per_layer("attention.head_count_kv", layers, heads)
    for query, kv in zip(heads, kv_heads, strict=True):
        if query % kv:
            raise keys.error(
                "attention.head_count_kv", f"expected a divisor of {query} heads, got {kv}."
            )
    return Sizes(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(keys, width, heads[0]),
        feed_forward=keys.per_layer("feed_forward_length", layers),
        context_length=keys.count("context_length"),
        eps=keys.number("attention.layer_norm_rms_epsilon"),
        vocab=_vocab(keys, shapes),
    )


def plain(
    keys: Fields,
    shapes: Shapes,
    read: _rope.Read,
    context: int | None,
    pairs: _rope.Pairs,
    *,
    experts: Callable[[Sizes], _experts.Experts | None] = lambda sizes: None,
    **traits: Any,
) -> Plan:
    """The plan of a family of Llama's shape: one rope for all layers, windows as trit's keys say.

    `experts` makes them from the sizes; `traits` are others of `Traits`.
    """
    sizes = read_sizes(keys, shapes)
    positions = context or sizes.context_length
    rope = _rope.scaled(keys, sizes.head_dim, shapes, read, pairs, positions)
    windows = _windows.from_trit(keys, sizes.layers)
    scale = 1.0 / math.sqrt(sizes.head_dim)
    common = Traits((rope,) * sizes.layers, windows, scale, experts=experts(sizes), **traits)
    return build(keys, sizes, shapes, common)


def build(keys: Fields, sizes: Sizes, shapes: Shapes, traits: Traits) -> Plan:
    """Check every tensor against `sizes` and assemble the plan."""
    if traits.experts is None and not _experts.absent(keys):
        raise UnsupportedError(f"{keys.path}: experts are not part of this architecture.")
    tensors = Tensors(keys.path, shapes)
    width = sizes.width
    embedding = tensors.matrix("token_embd.weight", sizes.vocab, width)
    layers = tuple(_layer(i, sizes, tensors, traits) for i in range(sizes.layers))
    head = embedding
    if "output.weight" in shapes:
        head = tensors.matrix("output.weight", sizes.vocab, width)
    plan = Plan(
        arch=keys.prefix.rstrip("."),
        width=width,
        vocab_size=sizes.vocab,
        context_length=sizes.context_length,
        embedding=embedding.weight,
        layers=layers,
        output_norm=tensors.norm("output_norm.weight", width, sizes.eps),
        head=head,
        embedding_scale=traits.embedding_scale,
        head_soft_cap=traits.head_soft_cap,
    )
    tensors.check_all_used(sizes.layers)
    return plan


def _layer(i: int, sizes: Sizes, tensors: Tensors, traits: Traits) -> Layer:
    block, width, eps = f"blk.{i}.", sizes.width, sizes.eps
    post = traits.post_norms
    return Layer(
        mixer=_attention(i, sizes, tensors, traits),
        feed_forward=_feed_forward(i, sizes, tensors, traits),
        mixer_norm=tensors.norm(block + "attn_norm.weight", width, eps),
        mixer_post_norm=(
            tensors.norm(block + "post_attention_norm.weight", width, eps) if post else None
        ),
        feed_forward_norm=tensors.norm(block + "ffn_norm.weight", width, eps),
        feed_forward_post_norm=(
            tensors.norm(block + "post_ffw_norm.weight", width, eps) if post else None
        ),
    )


def _attention(i: int, sizes: Sizes, tensors: Tensors, traits: Traits) -> Attention:
    block, width, head_dim = f"blk.{i}.attn_", sizes.width, sizes.head_dim
    heads, kv_heads = sizes.heads[i], sizes.kv_heads[i]
    rows = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
    if block + "qkv.weight" in tensors.shapes:
        q, k, v = tensors.slices(block + "qkv.weight", rows, width)
    else:
        q = tensors.matrix(block + "q.weight", rows[0], width)
        k = tensors.matrix(block + "k.weight", rows[1], width)
        v = tensors.matrix(block + "v.weight", rows[2], width)
    norms = traits.head_norms
    return Attention(
        q=q,
        k=k,
        v=v,
        output=tensors.matrix(block + "output.weight", width, rows[0]),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        scale=traits.attention_scale,
        rope=traits.ropes[i],
        q_norm=tensors.norm(block + "q_norm.weight", head_dim, sizes.eps) if norms else None,
        k_norm=tensors.norm(block + "k_norm.weight", head_dim, sizes.eps) if norms else None,
        window=traits.windows[i],
        soft_cap=traits.attention_soft_cap,
        sub_norm=(
            tensors.norm(block + "sub_norm.weight", rows[0], sizes.eps)
            if traits.sub_norms
            else None
        ),
    )


def _feed_forward(i: int, sizes: Sizes, tensors: Tensors, traits: Traits) -> FeedForward:
    if traits.experts is not None:
        return _experts.mixture(i, sizes.width, tensors, traits.experts, traits.activation)
    block, width, inner = f"blk.{i}.ffn_", sizes.width, sizes.feed_forward[i]
    if tensors.shapes.get(block + "up.weight") == (2 * inner, width):
        gate, up = tensors.slices(block + "up.weight", (inner, inner), width)
    else:
        gate = tensors.matrix(block + "gate.weight", inner, width)
        up = tensors.matrix(block + "up.weight", inner, width)
    down = tensors.matrix(block + "down.weight", width, inner)
    sub_norm = _sub_norm(block, inner, sizes, tensors, traits)
    return GatedFeedForward(gate, up, down, traits.activation, sub_norm)


def _sub_norm(block: str, size: int, sizes: Sizes, tensors: Tensors, traits: Traits) -> Norm | None:
    if not traits.sub_norms:
        return None
    return tensors.norm(block + "sub_norm.weight", size, sizes.eps)


def _head_dim(keys: Fields, width: int, heads: int) -> int:
    if not keys.has("attention.key_length") and width % heads:
        raise keys.error("embedding_length", f"expected a multiple of {heads} heads, got {width}.")
    head_dim = keys.count("attention.key_length", max(1, width // heads), high=MAX_HEAD_DIM)
    value_dim = keys.count("attention.value_length", head_dim)
    if value_dim != head_dim:
        raise UnsupportedError(
            f"{keys.path}: heads with keys of {head_dim} and values of {value_dim} numbers are "
            "not supported."
        )
    return head_dim


def _vocab(keys: Fields, shapes: Shapes) -> int:
    """Rows of the embedding, which must be as many as the tokens where the file has tokens."""
    shape = tuple(shapes.get("token_embd.weight", ()))
    if not shape:
        raise InvalidFileError(keys.path, "tensor 'token_embd.weight'", "missing.")
    tokens = keys.values.get("tokenizer.ggml.tokens")
    if tokens is None:
        return shape[0]
    if not is_list(tokens):
        raise InvalidFileError(keys.path, "key 'tokenizer.ggml.tokens'", "expected an array.")
    if len(tokens) != shape[0]:
        raise InvalidFileError(
            keys.path,
            "tensor 'token_embd.weight'",
            f"expected {len(tokens)} rows, one per token, got {shape[0]}.",
        )
    return shape[0]


def _refuse_what_no_plan_has(keys: Fields) -> None:
    """Settings that change the answer and have no place in a plan are refused, not ignored."""
    kind = keys.values.get("general.type", "model")
    if kind != "model":
        raise UnsupportedError(f"{keys.path}: holds a {kind!r}; trit runs only models.")
    if not keys.flag("attention.causal", True):
        raise UnsupportedError(f"{keys.path}: attention that sees the future is not supported.")
    for key in ("attention.clamp_kqv", "attention.max_alibi_bias"):
        if keys.has(key) and keys.optional_number(key) is not None:
            raise UnsupportedError(f"{keys.path}: key '{keys.prefix}{key}' is not supported.")
