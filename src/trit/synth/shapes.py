"""The shapes `synth` knows: sizes of published models, as their config.json states them.

A shape is turned into GGUF keys by the architecture that would convert the real model, so that the
two agree. Only sizes are from the models; nothing here knows a weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import archs
from trit.errors import UnsupportedError, UsageError
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
_NORMED = ("Gemma3ForCausalLM",)  # norms after each part
_HEAD_NORMED = ("Gemma3ForCausalLM", "Qwen3ForCausalLM")  # norms of each head's queries and keys
_DENSE = ("LlamaForCausalLM", "MistralForCausalLM", *_BIASED, *_HEAD_NORMED)


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

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(math.prod(size) for size in self.tensors().values())

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
        if self.hf_class in _HEAD_NORMED:
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

# Too large to be filled with random weights, but not to be planned with.
_70B = Shape("llama-3.1-70b", layers=80, width=8192, heads=64, kv_heads=8, ffn=28672, vocab=128256,
             context=131072, rope_scaling=_LLAMA3 | {"factor": 8.0}, tied=False)  # fmt: skip
_405B = replace(_70B, name="llama-3.1-405b", layers=126, width=16384, heads=128, ffn=53248)
PLANNED = SHAPES | {shape.name: shape for shape in (_70B, _405B)}


def custom(
    layers: int, width: int, heads: int, ffn: int, vocab: int, kv_heads: int | None = None
) -> Shape:
    """A shape of Llama's kind; `kv_heads` None: one for each head."""
    return Shape(
        "custom", layers, width, heads, heads if kv_heads is None else kv_heads, ffn, vocab
    )


def of_size(weights: int) -> Shape:
    """A dense shape of Llama 3's kind with so many weights, to 1%; UsageError out of 500M to 10T.

    Heads of 128 values, eight of them with keys, a feed-forward of about 3.5 times the width, and
    about 128 values of width for each layer, as in the published ones of 8B and 405B.
    """
    if not 5 * 10**8 <= weights <= 10**13:
        raise UsageError(f"a shape of {weights:,} weights: expected 500M to 10T.")
    tied = weights < 4 * 10**9
    width = max(2048, round((weights / 15 * 128) ** (1 / 3) / 1024 + 0.25) * 1024)
    inside = weights - _LLAMA_1B.vocab * width * (1 if tied else 2)
    attention = 2 * width * width + 2 * width * 8 * 128
    layers = max(1, round(inside / (attention + 10.5 * width * width)))
    ffn = round((inside / layers - attention) / (3 * width) / 256) * 256
    return Shape(
        "llama-like", layers, width, width // 128, 8, ffn, _LLAMA_1B.vocab, tied=tied,
        context=131072, note="a guess of Llama 3's kind: only the count of weights is given",
    )  # fmt: skip


def planned(text: str) -> Shape | None:
    """The shape of that name, or of a size such as 70B: Llama 3's where it has one of that size, to
    1%. None for what is neither; UsageError for a size out of range."""
    if text.lower() in PLANNED:
        return PLANNED[text.lower()]
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([MBT])", text.upper())
    if match is None:
        return None
    weights = round(float(match[1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[match[2]])
    for shape in (PLANNED["llama-3-8b"], _70B, _405B):
        if abs(shape.weights - weights) < 0.01 * weights:
            return shape
    return of_size(weights)


def of_config(hf_class: str, config: Mapping[str, Any]) -> Shape:
    """The shape a config.json states, completed by its class; UnsupportedError for a class whose
    layers hold other tensors than a Shape lists."""
    if hf_class not in _DENSE:
        raise UnsupportedError(
            f"{hf_class}: only of {', '.join(_DENSE)} the tensors follow from config.json alone. "
            "Name the folder with its weights, or a GGUF."
        )
    return Shape(
        "config.json",
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        ffn=config["intermediate_size"],
        vocab=config["vocab_size"],
        hf_class=hf_class,
        tied=config.get("tie_word_embeddings") is True,
        head_dim=config.get("head_dim"),
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
