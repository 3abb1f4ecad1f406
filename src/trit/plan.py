"""What to compute, layer by layer: archs produce a plan, executors read it.

No executor knows the name of an architecture. A layer is a *mixer* (attention) and a
*feed-forward*, each with optional norms before, inside and after; the list of operations is closed
and short. Tensor names are GGUF names; every weight is stored (rows, cols) = (outputs, inputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu", "relu2"]  # gelu is the tanh form


@dataclass(frozen=True)
class Linear:
    """y = (W @ x + bias)[row_start : row_start + rows]. A slice of rows views a fused matrix."""

    weight: str
    rows: int
    cols: int
    bias: str | None = None
    row_start: int = 0


@dataclass(frozen=True)
class Norm:
    """RMS norm: x / sqrt(mean(x²) + eps) · weight. Gemma's +1 is already in the stored weight."""

    weight: str
    eps: float


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of the first 2·len(inv_freq) values of each head.

    Angle of pair i at position p is p · inv_freq[i]; cos and sin are multiplied by `magnitude`
    (YaRN's attention factor). Every scaling (linear, llama3, yarn) is already in `inv_freq`.
    `pairs`: "halves" rotates (i, i + dim/2), "adjacent" rotates (2i, 2i + 1).
    """

    inv_freq: tuple[float, ...]
    pairs: Literal["halves", "adjacent"]
    magnitude: float = 1.0


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention: softmax(soft_cap(q·k · scale) + mask) v, then `output`.

    `window`: a query at position p sees the positions p − window + 1 … p; None sees all.
    """

    q: Linear
    k: Linear
    v: Linear
    output: Linear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    q_norm: Norm | None = None  # per head, before rope
    k_norm: Norm | None = None
    window: int | None = None
    soft_cap: float | None = None
    sinks: str | None = None
    sub_norm: Norm | None = None  # before `output`


@dataclass(frozen=True)
class GatedFeedForward:
    """down(sub_norm(activation(gate(x)) · up(x)))."""

    gate: Linear
    up: Linear
    down: Linear
    activation: Activation
    sub_norm: Norm | None = None


@dataclass(frozen=True)
class PlainFeedForward:
    """down(activation(up(x)))."""

    up: Linear
    down: Linear
    activation: Activation


@dataclass(frozen=True)
class Stack:
    """The matrices of all experts in one tensor, (experts, rows, cols)."""

    weight: str
    experts: int
    rows: int
    cols: int


@dataclass(frozen=True)
class SharedExpert:
    """sigmoid(gate(x)) · part(x), for every x; without a gate, part(x)."""

    part: GatedFeedForward
    gate: Linear | None = None


@dataclass(frozen=True)
class MixtureOfExperts:
    """Σ p_e · down_e(activation(gate_e(x)) · up_e(x)) over the chosen experts e, plus the shared.

    p = softmax(router(x)) over all experts; the `top_k` largest are chosen, of equals the first.
    With `renormalize` p is divided by the sum of the chosen; then it is multiplied by `scale`.
    """

    router: Linear
    gate: Stack
    up: Stack
    down: Stack
    top_k: int
    activation: Activation
    renormalize: bool
    scale: float = 1.0
    shared: SharedExpert | None = None


FeedForward = GatedFeedForward | PlainFeedForward | MixtureOfExperts


@dataclass(frozen=True)
class Layer:
    """h += post(mixer(pre(h))); h += post(feed_forward(pre(h)))."""

    mixer: Attention
    feed_forward: FeedForward
    mixer_norm: Norm | None = None
    mixer_post_norm: Norm | None = None
    feed_forward_norm: Norm | None = None
    feed_forward_post_norm: Norm | None = None


@dataclass(frozen=True)
class Plan:
    """A whole model: embedding · scale → layers → norm → head · scale → optional soft cap."""

    arch: str
    width: int
    vocab_size: int  # rows of the embedding, padding included
    context_length: int
    embedding: str
    layers: tuple[Layer, ...]
    output_norm: Norm
    head: Linear
    embedding_scale: float = 1.0
    head_scale: float = 1.0
    head_soft_cap: float | None = None
