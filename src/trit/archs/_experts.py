"""Mixtures of experts: their keys, their tensors, and the names that HF folders give them.

A GGUF holds the experts of a layer in three stacks. A folder holds every matrix of every expert by
itself (what `save_pretrained` writes) or fused stacks of gate and up (transformers' own layout).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trit.archs._fields import Fields
from trit.archs._tensors import Tensors
from trit.errors import UnsupportedError
from trit.plan import Activation, GatedFeedForward, MixtureOfExperts, SharedExpert

SOFTMAX = 1  # the GGUF id of the only gating function that a plan has


@dataclass(frozen=True)
class Experts:
    """Checked hyper-parameters of a model's experts; the tuples are widths, one per layer."""

    count: int
    used: int
    inner: tuple[int, ...]
    renormalize: bool
    scale: float
    shared: tuple[int, ...] | None = None


def read(
    keys: Fields,
    inner: tuple[int, ...],
    renormalize: bool,
    shared: tuple[int, ...] | None = None,
) -> Experts:
    """The experts that GGUF keys describe.

    `renormalize` is the family's own, for files that do not say; so is `inner`, the width per
    layer.
    """
    count = keys.count("expert_count")
    used = keys.count("expert_used_count")
    if used > count:
        raise keys.error("expert_used_count", f"expected at most {count} experts, got {used}.")
    if keys.count("expert_gating_func", SOFTMAX, low=0) not in (0, SOFTMAX):
        raise UnsupportedError(f"{keys.path}: experts that are not chosen by softmax.")
    if keys.count("expert_group_count", 0, low=0) > 1:
        raise UnsupportedError(f"{keys.path}: groups of experts are not supported.")
    return Experts(
        count=count,
        used=used,
        inner=keys.per_layer("expert_feed_forward_length", len(inner), inner),
        renormalize=keys.flag("expert_weights_norm", renormalize),
        scale=keys.optional_number("expert_weights_scale") or 1.0,
        shared=shared,
    )


def absent(keys: Fields) -> bool:
    """Whether the keys are of a dense model: no experts, and so none used."""
    if keys.count("expert_count", 0, low=0):
        return False
    keys.count("expert_used_count", 0, low=0, high=0)
    return True


def inner_of_all(keys: Fields, feed_forward: tuple[int, ...]) -> tuple[int, ...]:
    """The width of an expert where only that of all the used ones together is known (qwen)."""
    used = keys.count("expert_used_count", 1)
    return tuple(max(1, width // used) for width in feed_forward)


def mixture(
    i: int, width: int, tensors: Tensors, experts: Experts, activation: Activation
) -> MixtureOfExperts:
    """The feed-forward of layer `i`."""
    block, count, inner = f"blk.{i}.ffn_", experts.count, experts.inner[i]
    shared = None
    if experts.shared is not None:
        size = experts.shared[i]
        part = GatedFeedForward(
            gate=tensors.matrix(block + "gate_shexp.weight", size, width),
            up=tensors.matrix(block + "up_shexp.weight", size, width),
            down=tensors.matrix(block + "down_shexp.weight", width, size),
            activation=activation,
        )
        shared = SharedExpert(part, tensors.row(block + "gate_inp_shexp.weight", width))
    return MixtureOfExperts(
        router=tensors.matrix(block + "gate_inp.weight", count, width),
        gate=tensors.stack(block + "gate_exps.weight", count, inner, width),
        up=tensors.stack(block + "up_exps.weight", count, inner, width),
        down=tensors.stack(block + "down_exps.weight", count, width, inner),
        top_k=experts.used,
        activation=activation,
        renormalize=experts.renormalize,
        scale=experts.scale,
        shared=shared,
    )


def metadata_from_hf(
    config: Mapping[str, Any], path: object, renormalizes: bool = True
) -> dict[str, Any]:
    """The keys, without prefix, of a qwen family whose stock reader `renormalizes`, or not.

    UnsupportedError for a model of which some layers have no experts: there is no key for that.
    """
    fields = Fields(config, path)
    if fields.count("decoder_sparse_step") != 1 or config.get("mlp_only_layers"):
        raise UnsupportedError(
            f"{path}: layers without experts among those with are not supported."
        )
    keys: dict[str, Any] = counts_from_hf(config, path)
    keys["expert_feed_forward_length"] = fields.count("moe_intermediate_size")
    if fields.flag("norm_topk_prob") != renormalizes:
        keys["expert_weights_norm"] = not renormalizes
    return keys


def counts_from_hf(config: Mapping[str, Any], path: object) -> dict[str, int]:
    """How many experts there are and are used, under either name of transformers."""
    fields = Fields(config, path)
    count = "num_local_experts" if fields.has("num_local_experts") else "num_experts"
    return {
        "expert_count": fields.count(count),
        "expert_used_count": fields.count("num_experts_per_tok"),
    }


@dataclass(frozen=True)
class Place:
    """Where a tensor of experts goes: to expert `index` of the first stack in `stacks`, or, for
    None, all of it, its rows shared out evenly among `stacks`."""

    stacks: tuple[str, ...]
    index: int | None


_LAYER = r"model\.layers\.(0|[1-9][0-9]{0,5})\.(?:mlp|block_sparse_moe)\.experts\."
_SINGLE = re.compile(_LAYER + r"(0|[1-9][0-9]{0,5})\.(gate_proj|up_proj|down_proj|w[123])\.weight")
_FUSED = re.compile(_LAYER + r"(gate_up_proj|down_proj)(?:\.weight)?")
_PARTS = {
    **{"gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",)},
    **{"w1": ("gate",), "w3": ("up",), "w2": ("down",), "gate_up_proj": ("gate", "up")},
}


def place(hf_name: str) -> Place | None:
    """Where an HF tensor belongs if it holds weights of experts, else None."""
    if single := _SINGLE.fullmatch(hf_name):
        layer, index, part = single.groups()
    elif fused := _FUSED.fullmatch(hf_name):
        (layer, part), index = fused.groups(), None
    else:
        return None
    stacks = tuple(f"blk.{layer}.ffn_{name}_exps.weight" for name in _PARTS[part])
    return Place(stacks, None if index is None else int(index))
