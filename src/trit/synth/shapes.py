"""The shapes `synth` knows: sizes of published models, as their config.json states them.

A shape is turned into GGUF keys by the architecture that would convert the real model, so that the
two agree. Only sizes are from the models; nothing here knows a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import archs
from trit.errors import UsageError
from trit.synth._filler_vocabulary import SMALLEST

Floats = NDArray[np.float32]

_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_BIASED = {"Qwen2ForCausalLM": ("attn_q", "attn_k", "attn_v")}
_NORMED = ("Gemma3ForCausalLM",)  # norms after each part, and per head


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; `head_dim` None: width / heads."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    hf_class: str = "LlamaForCausalLM"
    tied: bool = True  # the embedding is also the output matrix
    context: int = 8192
    head_dim: int | None = None
    rope_base: float = 500_000.0
    rope_scaling: Mapping[str, Any] | None = None
    eps: float = 1e-5
    window: int | None = None
    note: str = ""  # what this shape leaves out

    @property
    def arch(self) -> str:
        """The architecture's GGUF name."""
        return archs.for_hf(self.hf_class).ARCH

    def check(self) -> None:
        """UsageError for sizes that no model can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < 1:
                raise UsageError(f"--{_flag(field.name)} {value}: expected 1 or more.")
        if self.heads % self.kv_heads:
            raise UsageError(
                f"--kv-heads {self.kv_heads}: expected a divisor of the {self.heads} heads."
            )
        if self.head_dim is None and self.width % (2 * self.heads):
            raise UsageError(
                f"--width {self.width}: expected a multiple of {2 * self.heads}, so that each of "
                f"the {self.heads} heads has an even number of values."
            )
        if self.vocab < SMALLEST:
            raise UsageError(
                f"--vocab {self.vocab}: expected {SMALLEST} or more: the bytes, a word, two marks."
            )

    def keys(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """The GGUF keys of the sizes, and the tensors that hold no weights (rope's divisors)."""
        module = archs.for_hf(self.hf_class)
        config = module.complete(self._config())
        return module.metadata_from_hf(config, self.name), module.extra_tensors(config, self.name)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape (rows, columns) or (values,) of every weight, in the order of a file."""
        top: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab, self.width)}
        if not self.tied:
            top["output.weight"] = (self.vocab, self.width)
        top["output_norm.weight"] = (self.width,)
        layer = self._layer()
        blocks = {f"blk.{i}.{name}": size for i in range(self.layers) for name, size in layer}
        return top | blocks

    def _layer(self) -> list[tuple[str, tuple[int, ...]]]:
        head = self.head_dim or self.width // self.heads
        query, kv = self.heads * head, self.kv_heads * head
        matrices = {
            "attn_q": (query, self.width),
            "attn_k": (kv, self.width),
            "attn_v": (kv, self.width),
            "attn_output": (self.width, query),
            "ffn_gate": (self.ffn, self.width),
            "ffn_up": (self.ffn, self.width),
            "ffn_down": (self.width, self.ffn),
        }
        norms = {"attn_norm": self.width, "ffn_norm": self.width}
        if self.hf_class in _NORMED:
            norms |= {"post_attention_norm": self.width, "post_ffw_norm": self.width}
            norms |= {"attn_q_norm": head, "attn_k_norm": head}
        made: list[tuple[str, tuple[int, ...]]] = [(f"{n}.weight", (s,)) for n, s in norms.items()]
        for name, size in matrices.items():
            made.append((f"{name}.weight", size))
            if name in _BIASED.get(self.hf_class, ()):
                made.append((f"{name}.bias", size[:1]))
        return made

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.ffn,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.eps,
            "rope_theta": self.rope_base,
            "tie_word_embeddings": self.tied,
        }
        optional = {
            "head_dim": self.head_dim,
            "sliding_window": self.window,
            "rope_scaling": self.rope_scaling,
        }
        return config | {key: value for key, value in optional.items() if value is not None}


def _flag(field: str) -> str:
    return field.replace("_", "-")


# The llama and qwen models of this table differ from one another in little but their sizes.
_LLAMA_1B = Shape("llama-3.2-1b", layers=16, width=2048, heads=32, kv_heads=8, ffn=8192,
                  vocab=128256, context=131072, rope_scaling=_LLAMA3)  # fmt: skip
_QWEN_HALF_B = Shape("qwen2.5-0.5b", layers=24, width=896, heads=14, kv_heads=2, ffn=4864,
                     vocab=151936, hf_class="Qwen2ForCausalLM", context=32768, rope_base=1e6,
                     eps=1e-6)  # fmt: skip
_ALL = (
    _LLAMA_1B,
    replace(_LLAMA_1B, name="llama-3.2-3b", layers=28, width=3072, heads=24),
    Shape("llama-3-8b", layers=32, width=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256,
          tied=False),
    Shape("bitnet-2b", layers=30, width=2560, heads=20, kv_heads=5, ffn=6912, vocab=128256,
          context=4096, note="the sizes of BitNet b1.58 2B in the llama architecture: its norms "
          "inside the layers and its squared ReLU are left out"),
    _QWEN_HALF_B,
    replace(_QWEN_HALF_B, name="qwen2.5-1.5b", layers=28, width=1536, heads=12, ffn=8960),
    Shape("gemma-3-1b", layers=26, width=1152, heads=4, kv_heads=1, head_dim=256, ffn=6912,
          vocab=262144, hf_class="Gemma3ForCausalLM", context=32768, rope_base=1e6, eps=1e-6,
          window=512),
)  # fmt: skip

SHAPES = {shape.name: shape for shape in _ALL}


def custom(
    layers: int, width: int, heads: int, ffn: int, vocab: int, kv_heads: int | None = None
) -> Shape:
    """A shape of Llama's kind; `kv_heads` None: one for each head."""
    return Shape(
        "custom", layers, width, heads, heads if kv_heads is None else kv_heads, ffn, vocab
    )


def find(name: str) -> Shape:
    """The shape of that name, in any case; UsageError with those there are."""
    try:
        return SHAPES[name.lower()]
    except KeyError:
        raise UsageError(
            f"no shape is called '{name}'; known: {', '.join(SHAPES)}. Or give --layers, --width, "
            "--heads, --ffn and --vocab."
        ) from None
