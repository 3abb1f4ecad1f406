"""The registry of architectures, and what every entry must offer."""

from __future__ import annotations

import pytest

from trit import archs
from trit.errors import UnsupportedError

NAMES = ("gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen3")


def test_the_scan_finds_every_family() -> None:
    assert set(NAMES) <= set(archs.all())


@pytest.mark.parametrize("name", sorted(archs.all()))
def test_every_arch_is_found_by_both_names(name: str) -> None:
    arch = archs.for_gguf(name)
    assert name == arch.ARCH
    assert arch.HF_CLASSES
    for class_name in arch.HF_CLASSES:
        assert archs.for_hf(class_name) is arch


@pytest.mark.parametrize("name", sorted(archs.all()))
def test_every_arch_knows_the_common_names_and_no_others(name: str) -> None:
    arch = archs.for_gguf(name)
    assert arch.rename("model.embed_tokens.weight") == "token_embd.weight"
    assert arch.rename("lm_head.weight") == "output.weight"
    assert arch.rename("model.norm.weight") == "output_norm.weight"
    assert arch.rename("model.layers.10.mlp.down_proj.weight") == "blk.10.ffn_down.weight"
    assert arch.rename("model.layers.0.self_attn.rotary_emb.inv_freq") is None
    for unknown in ("model.layers.0.weight", "model.layers.-1.mlp.down_proj.weight", "x", ""):
        with pytest.raises(UnsupportedError):
            arch.rename(unknown)


def test_unknown_architectures_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"mamba.*llama"):
        archs.for_gguf("mamba")
    with pytest.raises(UnsupportedError, match=r"BertModel.*LlamaForCausalLM"):
        archs.for_hf("BertModel")
