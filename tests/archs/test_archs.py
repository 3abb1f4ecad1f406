"""The registry of architectures, and what every entry must offer."""

from __future__ import annotations

import pytest

from trit import archs
from trit.archs import Place
from trit.errors import UnsupportedError

NAMES = (
    *("bitnet", "bitnet-b1.58", "gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen2moe", "qwen3"),
    "qwen3moe",
)


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


def test_where_experts_go() -> None:
    gate, up, down = (f"blk.3.ffn_{part}_exps.weight" for part in ("gate", "up", "down"))
    layer = "model.layers.3."
    assert archs.place(layer + "mlp.experts.7.gate_proj.weight") == Place((gate,), 7)
    assert archs.place(layer + "mlp.experts.0.down_proj.weight") == Place((down,), 0)
    assert archs.place(layer + "block_sparse_moe.experts.11.w3.weight") == Place((up,), 11)
    assert archs.place(layer + "mlp.experts.gate_up_proj") == Place((gate, up), None)
    assert archs.place(layer + "mlp.experts.down_proj.weight") == Place((down,), None)
    for other in (
        "mlp.gate_proj.weight", "mlp.experts.7.gate_proj.bias", "mlp.experts.-1.w1.weight",
        "mlp.experts.01.w1.weight", "mlp.experts.7.gate_up_proj", "mlp.experts.7.w4.weight",
        "mlp.experts.gate_proj.weight", "mlp.shared_expert.gate_proj.weight", "mlp.experts",
    ):  # fmt: skip
        assert archs.place(layer + other) is None, other


def test_unknown_architectures_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"mamba.*llama"):
        archs.for_gguf("mamba")
    with pytest.raises(UnsupportedError, match=r"BertModel.*LlamaForCausalLM"):
        archs.for_hf("BertModel")
