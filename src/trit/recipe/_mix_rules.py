"""What the named mixes are made of: conditions on a place in the model, and the row of rules.

`Site.index` counts tensors of the same kind in the order llama.cpp visits them (by layer, then by
name), `Site.count` is how many there are: of V-like tensors for attention, of layers for the
feed-forward. All divisions are integer divisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Blocks per architecture whose 8-fold shared attn_v llama.cpp keeps at 5 bits ("70B").
BIG_LAYERS = {"llama": 80, "qwen2": 80, "olmo": 80, "deci": 80, "jais2": 68}


@dataclass(frozen=True)
class Model:
    """What the rules may ask about a model."""

    arch: str
    layers: int
    experts: int  # 0 for a dense model
    heads_per_kv: int  # query heads that share one key/value head
    big: bool  # one of llama.cpp's "70B" shapes
    tied: bool  # the embedding is also the output matrix
    importance: bool  # quantized with importance data

    @property
    def falcon(self) -> bool:
        return self.arch == "falcon"


@dataclass(frozen=True)
class Site:
    """One tensor among those of its kind."""

    model: Model
    index: int
    count: int


Rule = tuple[Callable[[Site], bool], str]


@dataclass(frozen=True)
class Mix:
    """A named mix: `file_type` is GGUF's general.file_type, `base` the format of most tensors."""

    name: str
    file_type: int
    base: str
    attn_v: tuple[Rule, ...] = ()
    attn_v_eight: str = "q8_0"  # of models of eight experts
    attn_v_big: str | None = "q5_k"  # of "70B" shapes, instead of three or four bits
    attn_k: str | None = None
    attn_k_eight: str = "q8_0"
    attn_q: str | None = None
    ffn_down: tuple[Rule, ...] = ()
    downs_by_layer: bool = True  # where there are experts; else one tensor after the other
    ffn_up: tuple[Rule, ...] = ()  # and ffn_gate
    attn_output: str | None = None  # but for falcon and models of eight experts
    attn_output_eight: str | None = None
    attn_output_falcon: str | None = None
    dense: str | None = None  # all but the experts' matrices, which lie in one tensor
    head: str = "q6_k"  # the output, or the embedding tied to it
    embedding: str | None = None  # where it is not tied to the output


def more_bits(site: Site) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    eighth = site.count // 8
    late = site.index >= 7 * site.count // 8
    return site.index < eighth or late or (site.index - eighth) % 3 == 2


def first(share: int) -> Callable[[Site], bool]:
    """The first 1/share of the layers."""
    return lambda site: site.index < site.count // share


def below(index: int) -> Callable[[Site], bool]:
    """The first tensors of the kind, counted."""
    return lambda site: site.index < index


def always(site: Site) -> bool:
    return True


def shared(site: Site) -> bool:
    """Four or more query heads read the same keys and values."""
    return site.model.heads_per_kv >= 4


def shared_or_experts(site: Site) -> bool:
    """As `shared`, or four or more experts."""
    return shared(site) or site.model.experts >= 4


def between(share: int) -> Callable[[Site], bool]:
    """All layers but the first and the last 1/share."""
    return lambda site: site.count // share <= site.index < (share - 1) * site.count // share


def eight(site: Site) -> bool:
    return site.model.experts == 8


def falcon(site: Site) -> bool:
    return site.model.falcon


def weighted(site: Site) -> bool:
    return site.model.importance


def both(one: Callable[[Site], bool], two: Callable[[Site], bool]) -> Callable[[Site], bool]:
    return lambda site: one(site) and two(site)


def without(test: Callable[[Site], bool]) -> Callable[[Site], bool]:
    return lambda site: not test(site)
