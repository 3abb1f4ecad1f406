"""Model shapes and flags on which the named mixes are compared with llama.cpp.

Shared by `scripts/mixes_golden.py`, which asks `llama-quantize --dry-run`, and by
`recipe/test_recipe.py`.
Only names and shapes matter, so that a 70B model costs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A model by its numbers; all tensors are F16 matrices except norms, biases and routers."""

    arch: str
    layers: int
    embed: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocab: int = 512
    tied: bool = False
    experts: int = 0
    shared: int = 0  # width of a shared expert
    fused: bool = False  # phi3: one QKV matrix, gate and up in one

    @property
    def metadata(self) -> dict[str, int | float | str]:
        own: dict[str, int | float | str] = {
            "block_count": self.layers,
            "context_length": 512,
            "embedding_length": self.embed,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.layer_norm_epsilon": 1e-5,
            "rope.dimension_count": self.embed // self.heads,
        }
        if self.experts:
            own |= {"expert_count": self.experts, "expert_used_count": 2}
            own |= {"expert_feed_forward_length": self.feed_forward}
            own |= {"expert_shared_feed_forward_length": self.shared} if self.shared else {}
        return {"general.architecture": self.arch} | {
            f"{self.arch}.{key}": value for key, value in own.items()
        }

    @property
    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """(name, shape) in numpy order; vectors are F32, matrices F16, routers F32."""
        e, f = self.embed, self.feed_forward
        kv = e // self.heads * self.kv_heads
        found: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (self.vocab, e))]
        for i in range(self.layers):
            block: list[tuple[str, tuple[int, ...]]] = [("attn_norm.weight", (e,))]
            if self.fused:
                block += [("attn_qkv.weight", (e + 2 * kv, e)), ("ffn_up.weight", (2 * f, e))]
            else:
                block += [
                    ("attn_q.weight", (e, e)),
                    ("attn_q.bias", (e,)),
                    ("attn_k.weight", (kv, e)),
                    ("attn_v.weight", (kv, e)),
                ]
            block += [("attn_output.weight", (e, e)), ("ffn_norm.weight", (e,))]
            if self.experts:
                n = self.experts
                block += [
                    ("ffn_gate_inp.weight", (n, e)),
                    ("ffn_gate_exps.weight", (n, f, e)),
                    ("ffn_up_exps.weight", (n, f, e)),
                    ("ffn_down_exps.weight", (n, e, f)),
                ]
                if self.shared:
                    block += [
                        ("ffn_gate_inp_shexp.weight", (1, e)),
                        ("ffn_gate_shexp.weight", (self.shared, e)),
                        ("ffn_up_shexp.weight", (self.shared, e)),
                        ("ffn_down_shexp.weight", (e, self.shared)),
                    ]
            else:
                if not self.fused:
                    block += [("ffn_gate.weight", (f, e)), ("ffn_up.weight", (f, e))]
                block.append(("ffn_down.weight", (e, f)))
            found += [(f"blk.{i}.{name}", shape) for name, shape in block]
        found.append(("output_norm.weight", (e,)))
        if not self.tied:
            found.append(("output.weight", (self.vocab, e)))
        return found

    def format(self, name: str, shape: tuple[int, ...]) -> str:
        return "f32" if len(shape) < 2 or "ffn_gate_inp" in name else "f16"


CASES = {
    "llama-8b": Case("llama", 32, 4096, 14336, 32, 8),
    "llama-70b": Case("llama", 80, 8192, 28672, 64, 8),
    "llama-65b": Case("llama", 80, 8192, 22016, 64, 64),
    "llama-2-13b": Case("llama", 40, 5120, 13824, 40, 40),
    "llama-tied-odd": Case("llama", 30, 576, 1536, 9, 3, tied=True),
    "llama-odd": Case("llama", 6, 96, 160, 3, 3),
    "llama-not-32": Case("llama", 3, 80, 272, 5, 5),
    "mixtral-8x7b": Case("llama", 32, 4096, 14336, 32, 8, experts=8),
    "mixtral-80": Case("llama", 80, 1024, 2048, 8, 2, experts=8),
    "llama-moe-16": Case("llama", 24, 1024, 512, 16, 4, experts=16),
    "qwen2-57b-a14b": Case("qwen2moe", 28, 3584, 2560, 28, 4, experts=64, shared=20480),
    "qwen3-30b-a3b": Case("qwen3moe", 48, 2048, 768, 32, 4, experts=128),
    "qwen3-odd-8": Case("qwen3moe", 9, 512, 160, 8, 4, experts=8, tied=True),
    "qwen2-0.5b": Case("qwen2", 24, 896, 4864, 14, 2, tied=True),
    "qwen2-72b": Case("qwen2", 80, 8192, 29568, 64, 8),
    "qwen3-4b": Case("qwen3", 36, 2560, 9728, 32, 8, tied=True),
    "gemma3-270m": Case("gemma3", 18, 640, 2048, 4, 1, tied=True),
    "gemma2-9b": Case("gemma2", 42, 3584, 14336, 16, 8, tied=True),
    "phi3-mini": Case("phi3", 32, 3072, 8192, 32, 32, fused=True),
    "falcon-7b": Case("falcon", 32, 4544, 18176, 71, 1, fused=True),
    "falcon-40b": Case("falcon", 60, 8192, 32768, 128, 8, fused=True),
}

# Flags of llama-quantize; each set is tried on OPTION_CASES with OPTION_MIXES.
OPTIONS: dict[str, tuple[str, ...]] = {
    "pure": ("--pure",),
    "output": ("--output-tensor-type", "q5_k"),
    "output-pure": ("--pure", "--output-tensor-type", "q8_0"),
    "embedding": ("--token-embedding-type", "q8_0"),
    "both": ("--token-embedding-type", "q4_0", "--output-tensor-type", "f16"),
    "tensor-v": ("--tensor-type", "attn_v=q8_0"),
    "tensor-some": (
        "--tensor-type",
        r"blk\.[0-3]\.attn_v=q6_k",
        "--tensor-type",
        r"^blk\.(1|5)\.ffn_down\.weight$=Q3_K",
        "--tensor-type",
        "ffn_=q4_k",
        "--tensor-type",
        "ffn_down=q2_k",
    ),
    "tensor-embedding": ("--tensor-type", "token_embd=q3_k", "--tensor-type", "output=q6_k"),
    "pure-tensor": ("--pure", "--tensor-type", "attn_output=iq4_xs"),
}
OPTION_CASES = ("llama-8b", "llama-tied-odd", "phi3-mini", "mixtral-8x7b")
OPTION_MIXES = (
    *("Q4_K_M", "Q3_K_M", "Q2_K", "Q8_0", "IQ4_XS", "Q4_0", "TQ2_0", "F16"),
    *("IQ1_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "MXFP4_MOE"),
)
