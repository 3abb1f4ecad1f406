"""The plan of a decoder-only transformer: what the six families share.

An arch file says in `Traits` how its family differs; here the sizes are read and checked, every
tensor's shape is compared with what the sizes ask for, and the layers are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trit.archs._fields import MAX_HEAD_DIM, Fields, is_list
from trit.errors import InvalidFileError, UnsupportedError
from trit.plan import Activation, Attention, GatedFeedForward, Layer, Linear, Norm, Plan, Rope

Shapes = Mapping[str, tuple[int, ...]]

# Tensors beside the plan that a file may carry: rope divisors (read into the plan), old converters'
# unused rotary tables, and planes that trit itself adds.
_BESIDE_THE_PLAN = ("rope_", "trit.")
_UNUSED_SUFFIXES = (".attn_rot_embd", ".attn_rot_embd.weight", ".rotary_emb.inv_freq")


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
    attention_soft_cap: float | None = None
    embedding_scale: float = 1.0
    head_soft_cap: float | None = None


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


def build(keys: Fields, sizes: Sizes, shapes: Shapes, traits: Traits) -> Plan:
    """Check every tensor against `sizes` and assemble the plan."""
    tensors = _Tensors(keys.path, shapes)
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
    tensors.check_all_used()
    return plan


class _Tensors:
    """Makes the plan's parts, checking each shape and noting which tensors are used."""

    def __init__(self, path: object, shapes: Shapes) -> None:
        self.path = path
        self.shapes = shapes
        self.used: set[str] = set()

    def matrix(self, name: str, rows: int, cols: int) -> Linear:
        """The whole of a (rows, cols) matrix, with its bias if the file has one."""
        self._take(name, (rows, cols))
        return Linear(name, rows, cols, bias=self._bias(name, rows))

    def slices(self, name: str, parts: tuple[int, ...], cols: int) -> tuple[Linear, ...]:
        """Views of a fused matrix (sum of `parts`, cols), one per part, from the top."""
        self._take(name, (sum(parts), cols))
        if self._bias(name, sum(parts)) is not None:
            raise UnsupportedError(f"{self.path}: the bias of the fused '{name}' is not supported.")
        starts = [sum(parts[:i]) for i in range(len(parts))]
        return tuple(
            Linear(name, rows, cols, row_start=start)
            for rows, start in zip(parts, starts, strict=True)
        )

    def norm(self, name: str, size: int, eps: float) -> Norm:
        """An RMS norm over `size` values."""
        self._take(name, (size,))
        return Norm(name, eps)

    def check_all_used(self) -> None:
        """Refuse a file with a tensor that the plan would ignore: its answers would be wrong."""
        for name in self.shapes:
            if name in self.used or name.startswith(_BESIDE_THE_PLAN):
                continue
            if name.endswith(_UNUSED_SUFFIXES):
                continue
            raise UnsupportedError(
                f"{self.path}: tensor '{name}' is not part of this architecture as trit knows it."
            )

    def _bias(self, weight: str, rows: int) -> str | None:
        name = weight.removesuffix(".weight") + ".bias"
        if name not in self.shapes:
            return None
        self._take(name, (rows,))
        return name

    def _take(self, name: str, expected: tuple[int, ...]) -> None:
        if name not in self.shapes:
            raise InvalidFileError(
                self.path, f"tensor '{name}'", f"missing; expected shape {expected}."
            )
        if tuple(self.shapes[name]) != expected:
            raise InvalidFileError(
                self.path,
                f"tensor '{name}'",
                f"expected shape {expected}, got {tuple(self.shapes[name])}.",
            )
        self.used.add(name)


def _layer(i: int, sizes: Sizes, tensors: _Tensors, traits: Traits) -> Layer:
    block, width, eps = f"blk.{i}.", sizes.width, sizes.eps
    post = traits.post_norms
    return Layer(
        mixer=_attention(i, sizes, tensors, traits),
        feed_forward=_feed_forward(i, sizes, tensors, traits.activation),
        mixer_norm=tensors.norm(block + "attn_norm.weight", width, eps),
        mixer_post_norm=(
            tensors.norm(block + "post_attention_norm.weight", width, eps) if post else None
        ),
        feed_forward_norm=tensors.norm(block + "ffn_norm.weight", width, eps),
        feed_forward_post_norm=(
            tensors.norm(block + "post_ffw_norm.weight", width, eps) if post else None
        ),
    )


def _attention(i: int, sizes: Sizes, tensors: _Tensors, traits: Traits) -> Attention:
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
    )


def _feed_forward(
    i: int, sizes: Sizes, tensors: _Tensors, activation: Activation
) -> GatedFeedForward:
    block, width, inner = f"blk.{i}.ffn_", sizes.width, sizes.feed_forward[i]
    if tensors.shapes.get(block + "up.weight") == (2 * inner, width):
        gate, up = tensors.slices(block + "up.weight", (inner, inner), width)
    else:
        gate = tensors.matrix(block + "gate.weight", inner, width)
        up = tensors.matrix(block + "up.weight", inner, width)
    down = tensors.matrix(block + "down.weight", width, inner)
    return GatedFeedForward(gate=gate, up=up, down=down, activation=activation)


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
    experts = keys.count("expert_count", 0, low=0)
    used = keys.count("expert_used_count", 0, low=0)
    if used > experts:
        raise keys.error("expert_used_count", f"expected at most {experts} experts, got {used}.")
    if experts:
        raise UnsupportedError(f"{keys.path}: mixtures of experts are not supported yet.")
    if not keys.flag("attention.causal", True):
        raise UnsupportedError(f"{keys.path}: attention that sees the future is not supported.")
    for key in ("attention.clamp_kqv", "attention.max_alibi_bias"):
        if keys.has(key) and keys.optional_number(key) is not None:
            raise UnsupportedError(f"{keys.path}: key '{keys.prefix}{key}' is not supported.")
