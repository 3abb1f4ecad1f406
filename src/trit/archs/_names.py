"""HF tensor names → GGUF names, for decoders of the Llama shape."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trit.errors import UnsupportedError

_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "lm_head.bias": "output.bias",
}
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.(.+)\.(weight|bias)")
_DROPPED = re.compile(
    r".*(\.rotary_emb\.inv_freq|\.attention\.masked_bias|\.attention\.bias)"
    r"|(model\.)?(vision_tower|vision_model|multi_modal_projector)\..*"
)

LLAMA_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

GEMMA_LAYER = LLAMA_LAYER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}

# The experts' own matrices are in _experts.py: they are no tensors of their own in a GGUF.
MIXTRAL_LAYER = LLAMA_LAYER | {"block_sparse_moe.gate": "ffn_gate_inp", "mlp.gate": "ffn_gate_inp"}

QWEN_EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}

HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


def rename(name: str, layer_names: Mapping[str, str]) -> str | None:
    """The GGUF name of an HF tensor; None for those a converter drops (images, rotary tables).

    A name of neither kind is an UnsupportedError: leaving it out would change the answers.
    """
    if _DROPPED.fullmatch(name):
        return None
    plain = name.replace("language_model.model.", "model.").replace("language_model.", "")
    if plain in _TOP:
        return _TOP[plain]
    if (match := _LAYER.fullmatch(plain)) and (inner := layer_names.get(match[2])):
        return f"blk.{match[1]}.{inner}.{match[3]}"
    raise UnsupportedError(f"tensor '{name}' is not part of this architecture as trit knows it.")
