"""Which format every tensor gets: the named mixes, and the types a plain conversion writes.

`choose` gives for a name such as Q4_K_M the same type per tensor as llama.cpp's quantizer prints
with `--dry-run`; users compare files by these names. The tables are in `_mixes.py`. Nothing here
reads weights: a choice follows from names, shapes, a few hyper-parameters and the user's overrides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trit import formats
from trit.errors import UsageError
from trit.recipe._mix_rules import BIG_LAYERS, Mix, Model, Rule, Site
from trit.recipe._mixes import (
    ALIASES,
    F32_PARTS,
    FALLBACKS,
    KEPT_NAMES,
    KEPT_PARTS,
    MIXES,
)

FLOATS = ("f32", "f16", "bf16", "f64")
# The formats that can be rounded to are the bases of the mixes; the others are only read.
WRITABLE = frozenset(each.base for each in MIXES.values())
_LAYER = re.compile(r"blk\.(\d+)\.")
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")


class Weight(NamedTuple):
    """A tensor as a recipe sees it: `shape` in numpy order, `format` the one it is stored in."""

    name: str
    shape: tuple[int, ...]
    format: str


@dataclass(frozen=True)
class Choice:
    """The format one tensor will have; `fallback_from` is the one its rows were too odd for."""

    name: str
    format: str
    fallback_from: str | None = None


@dataclass(frozen=True)
class Overrides:
    """What the user asked for by hand; formats are names such as `q6_k`."""

    tensor_types: tuple[tuple[re.Pattern[str], str], ...] = ()  # the first pattern that is found
    output: str | None = None
    embedding: str | None = None
    pure: bool = False  # the base format everywhere


def is_mix(name: str) -> bool:
    """Whether `mix` knows this name."""
    return _find(name) is not None


def _find(name: str) -> Mix | None:
    wanted = name.upper()
    if wanted.isdecimal():
        return next((m for m in MIXES.values() if m.file_type == int(wanted)), None)
    return MIXES.get(ALIASES.get(wanted, wanted))


def mix(name: str) -> Mix:
    """The mix of that name, in any case, or by its GGUF file type. UsageError for another."""
    found = _find(name)
    if found is None:
        known = ", ".join([*MIXES, *ALIASES])
        raise UsageError(f"unknown quantization type '{name}'; known: {known}")
    return found


def format_name(text: str, flag: str) -> str:
    """The format a flag names (`Q6_K`, `q6_k`); UsageError for one that does not exist."""
    name = text.lower()
    if name not in formats.all():
        raise UsageError(f"{flag}: unknown format '{text}'; known: {', '.join(formats.all())}")
    return name


def overrides(
    tensor_types: Sequence[str] = (),
    output: str | None = None,
    embedding: str | None = None,
    pure: bool = False,
) -> Overrides:
    """Check the user's wishes: `tensor_types` are PATTERN=TYPE, found anywhere in the name.

    A pattern is a regular expression that ignores case; the first that is found decides.
    """
    patterns = []
    for text in tensor_types:
        pattern, separator, type_text = text.partition("=")
        if not (separator and pattern and type_text):
            raise UsageError(f"--tensor-type '{text}': expected PATTERN=TYPE, like attn_v=q6_k")
        try:
            compiled = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise UsageError(f"--tensor-type '{text}': bad regular expression: {error}") from None
        patterns.append((compiled, format_name(type_text, "--tensor-type")))
    return Overrides(
        tuple(patterns),
        None if output is None else format_name(output, "--output-tensor-type"),
        None if embedding is None else format_name(embedding, "--token-embedding-type"),
        pure,
    )


def choose(
    name: str,
    metadata: Mapping[str, object],
    weights: Iterable[Weight],
    *,
    wishes: Overrides | None = None,
    importance: bool = False,
) -> list[Choice]:
    """One Choice per weight, in the order given, for the mix of this name.

    `metadata` holds GGUF keys; `importance` says whether importance data will be used, which some
    mixes depend on. Raises UsageError for an unknown mix.
    """
    items = list(weights)
    values = sum(_kind(item.name) == "attn_v" for item in items)
    chooser = _Chooser(
        mix(name), _model(metadata, items, importance), wishes or Overrides(), values
    )
    made = {item.name: chooser.choose(item) for item in sorted(items, key=_visit_order)}
    return [made[item.name] for item in items]


def unused(wishes: Overrides, weights: Iterable[Weight]) -> list[str]:
    """The wishes that decide nothing in this model, as the user typed them."""
    items = [item for item in weights if is_quantizable(item)]
    named = {item.name for item in items}
    found = [
        f"--tensor-type {pattern.pattern}"
        for pattern, _ in wishes.tensor_types
        if not any(pattern.search(name) for name in named)
    ]
    # A tied embedding stands for the output, but not where one format was asked for everywhere.
    if wishes.output and "output.weight" not in named and (wishes.pure or wishes.embedding):
        found.append("--output-tensor-type (no output.weight)")
    if wishes.embedding and not named.intersection(_EMBEDDINGS):
        found.append("--token-embedding-type (no token_embd.weight)")
    return found


def expand(target: str, weights: Iterable[Weight]) -> list[Choice]:
    """One Choice per weight for a plain conversion to `target` (f32, f16, bf16 or q8_0).

    As the stock converters do: vectors, norms, routers and whatever is not a `.weight` stay F32.
    """
    made = []
    for item in weights:
        if is_float32(item):
            made.append(Choice(item.name, "f32"))
        elif item.shape[-1] % formats.get(target).block_weights:
            made.append(Choice(item.name, "f16", fallback_from=target))
        else:
            made.append(Choice(item.name, target))
    return made


def is_float32(item: Weight) -> bool:
    """Whether the stock converters always store this tensor as F32."""
    if len(item.shape) < 2 or not item.name.endswith(".weight"):
        return True
    return item.name in KEPT_NAMES or any(part in item.name for part in F32_PARTS)


def is_quantizable(item: Weight) -> bool:
    """Whether a mix touches this tensor at all."""
    if sum(n > 1 for n in item.shape[:-1]) == 0:  # one row counts as a vector
        return False
    if not item.name.endswith("weight") or item.name in KEPT_NAMES:
        return False
    return not any(part in item.name for part in KEPT_PARTS)


def _model(metadata: Mapping[str, object], items: Sequence[Weight], importance: bool) -> Model:
    arch = str(metadata.get("general.architecture", ""))

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if not isinstance(value, int):  # one value per layer: llama.cpp looks at the first
            try:
                value = next(iter(value), default)  # type: ignore[call-overload]
            except TypeError:
                value = default
        return int(value)

    heads = number("attention.head_count", 0)
    kv_heads = number("attention.head_count_kv", heads)
    layers, experts = number("block_count", 0), number("expert_count", 0)
    big = BIG_LAYERS.get(arch) == layers
    if arch == "llama":
        big = big and heads != kv_heads and experts != 8
    return Model(
        arch=arch,
        layers=layers,
        experts=experts,
        heads_per_kv=heads // kv_heads if kv_heads else 0,
        big=big,
        tied=all(item.name != "output.weight" for item in items),
        importance=importance,
    )


def _visit_order(item: Weight) -> tuple[int, str]:
    """llama.cpp visits tensors by layer, then by name; the counters of the rules depend on it."""
    found = _LAYER.match(item.name)
    return (int(found.group(1)) if found else -1, item.name)


def _kind(name: str) -> str:
    if name == "output.weight":
        return "output"
    if name in _EMBEDDINGS:
        return "embedding"
    if any(f"attn_{part}.weight" in name for part in ("qkv", "kv_b", "v")):
        return "attn_v"
    for kind in ("attn_k", "attn_q", "attn_output"):
        if f"{kind}.weight" in name:
            return kind
    # The order matters: a name is what it is found to be first.
    return next((kind for kind in ("ffn_up", "ffn_gate", "ffn_down") if kind in name), "other")


class _Chooser:
    """Walks the tensors in llama.cpp's order and counts those of each kind as it does."""

    def __init__(self, recipe: Mix, model: Model, wishes: Overrides, values: int) -> None:
        self.mix = recipe
        self.model = model
        self.wishes = wishes
        self.values = values  # V-like tensors in the model
        self.seen: Counter[str] = Counter()  # tensors of each kind that were asked about

    def choose(self, item: Weight) -> Choice:
        if not is_quantizable(item):
            return Choice(item.name, item.format)
        kind = _kind(item.name)
        by_pattern = self._by_pattern(item.name)
        wished = self._by_place(item.name, kind, by_pattern)
        if wished is None and self.mix.base in FLOATS:
            return Choice(item.name, self.mix.base)
        if wished is None:
            wished = by_pattern
        if wished is None:
            wished = self.mix.base if self.wishes.pure else self._by_mix(item, kind)
        return fit(item, wished)

    def _by_pattern(self, name: str) -> str | None:
        found = (fmt for pattern, fmt in self.wishes.tensor_types if pattern.search(name))
        return next(found, None)

    def _by_place(self, name: str, kind: str, by_pattern: str | None) -> str | None:
        if kind == "output":
            return self.wishes.output
        if kind != "embedding" or (name != _EMBEDDINGS[0] and by_pattern):
            return None  # the large per-layer embedding can be named by a pattern
        return self.wishes.embedding

    def _by_mix(self, item: Weight, kind: str) -> str:
        head = kind == "output" or (kind == "embedding" and self.model.tied)
        if head and self.wishes.output:
            return self.wishes.output
        if self.mix.dense and len(item.shape) < 3:
            return self.mix.dense
        if head:
            return self._head(item)
        if kind == "embedding":
            return self.mix.embedding or self.mix.base
        if kind == "attn_v":
            return self._values()
        if kind == "attn_k" and self.model.experts == 8:
            return self.mix.attn_k_eight
        chosen = None
        if kind in ("attn_k", "attn_q"):
            chosen = self.mix.attn_k if kind == "attn_k" else self.mix.attn_q
        elif kind in ("ffn_down", "ffn_up", "ffn_gate"):
            chosen = self._feed_forward(item, kind)
        elif kind == "attn_output":
            chosen = self._attention_output()
        return chosen or self.mix.base

    def _head(self, item: Weight) -> str:
        if self.model.falcon or self.mix.base == "q8_0":
            return "q8_0"
        return self.mix.head if item.shape[-1] % 256 == 0 else "q6_k"  # which falls back to Q8_0

    def _values(self) -> str:
        chosen = _first(self.mix.attn_v, Site(self.model, self.seen["attn_v"], self.values))
        self.seen["attn_v"] += 1
        chosen = chosen or self.mix.base
        if self.model.experts == 8:
            return self.mix.attn_v_eight
        few = chosen in ("q3_k", "q4_k")
        return self.mix.attn_v_big if self.model.big and few and self.mix.attn_v_big else chosen

    def _feed_forward(self, item: Weight, kind: str) -> str | None:
        index = self.seen[kind]
        by_layer = kind != "ffn_down" or self.mix.downs_by_layer
        if self.model.experts > 1 and by_layer:  # several per layer: the name tells
            found = _LAYER.match(item.name)
            index = int(found.group(1)) if found else index
        self.seen[kind] += 1
        rules = self.mix.ffn_down if kind == "ffn_down" else self.mix.ffn_up
        return _first(rules, Site(self.model, index, self.model.layers))

    def _attention_output(self) -> str | None:
        if self.model.falcon:
            return self.mix.attn_output_falcon
        return self.mix.attn_output_eight if self.model.experts == 8 else self.mix.attn_output


def fit(item: Weight, wished: str) -> Choice:
    """The wished format if its blocks divide the rows, else its neighbour, else F16."""
    columns = item.shape[-1]
    if columns % formats.get(wished).block_weights == 0:
        return Choice(item.name, wished)
    fallback = FALLBACKS.get(wished, wished)
    if columns % formats.get(fallback).block_weights:
        fallback = "f16"
    return Choice(item.name, fallback, fallback_from=wished)


def _first(rules: Sequence[Rule], site: Site) -> str | None:
    return next((fmt for holds, fmt in rules if holds(site)), None)
