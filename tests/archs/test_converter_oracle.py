"""A folder opened as a virtual GGUF equals, key by key and byte by byte, what llama.cpp writes.

The oracle is llama.cpp's converter; TRIT_LLAMA_CPP names a checkout of its sources. Without it
these tests are skipped; the logits (tests/test_reference.py) still test the transforms.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tiny models need torch (dev extra)")
pytest.importorskip("transformers", reason="the tiny models need transformers (dev extra)")

from sentencepiece_model import train
from tiny import LINEAR, LLAMA3, YARN, Rope, Variant, longrope, tiny_model

from trit.files import checkpoint, gguf

SOURCES = os.environ.get("TRIT_LLAMA_CPP", "")
pytestmark = pytest.mark.skipif(
    not (Path(SOURCES) / "conversion").is_dir(),
    reason="TRIT_LLAMA_CPP names no llama.cpp sources with a converter",
)

FULL, SLIDES = "full_attention", "sliding_attention"
YARN_SET: Rope = YARN | {"beta_fast": 16.0, "attention_factor": 1.5}
# The converter cuts Gemma 3's embedding to the tokens and those added (which it counts twice).
VOCAB = 268

BYTE_LEVEL = [
    ("llama", Variant(vocab=VOCAB), ()),
    ("llama", Variant(tied=True, biases=True, head_dim=24, rope=LLAMA3, dtype="bfloat16"), ()),
    ("llama", Variant(rope=YARN_SET, dtype="float16"), ()),
    ("llama", Variant(rope=LINEAR), ()),
    ("mistral", Variant(window=16), (TRIT := "trit.attention.sliding_window",)),
    ("qwen2", Variant(), ()),
    ("qwen2", Variant(window=16, rope=YARN), (TRIT, f"{TRIT}_pattern")),
    ("qwen3", Variant(tied=True, dtype="bfloat16"), ()),
    ("gemma3", Variant(layers=7, vocab=VOCAB), ()),
    (
        "gemma3",
        Variant(layer_types=(SLIDES, FULL, SLIDES), soft_caps=(None, 20.0), vocab=VOCAB),
        ("gemma3.attention.sliding_window_pattern",),
    ),
    ("gemma3_vision", Variant(layers=7, dtype="bfloat16", vocab=VOCAB), ()),
    ("phi3", Variant(), ()),
    ("phi3", Variant(window=16, rope=longrope(pairs=8, original=64)), ()),
    ("mixtral", Variant(dtype="bfloat16"), ()),
    ("mixtral", Variant(window=16, experts=4), (TRIT,)),
    ("qwen2moe", Variant(), ()),
    ("qwen2moe", Variant(renormalize=True, fused=True), ("qwen2moe.expert_weights_norm",)),
    ("qwen3moe", Variant(dtype="bfloat16"), ()),
    ("qwen3moe", Variant(fused=True, tied=True, window=16, biases=True), (TRIT,)),
]

SENTENCEPIECE = [
    ("llama", Variant(vocab=640), ()),
    ("gemma2", Variant(vocab=640, dtype="bfloat16"), ()),
    ("gemma2", Variant(vocab=640, attention_scalar=24), ("trit.attention.scale",)),
    ("gemma3", Variant(vocab=640), ()),
    ("phi3", Variant(vocab=640), ()),
]


@pytest.mark.parametrize(("arch", "variant", "beyond"), BYTE_LEVEL)
def test_byte_level_models(
    arch: str, variant: Variant, beyond: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    tiny_model(arch, folder, Variant(**{**vars(variant), "tokenizer": True}))
    compare(folder, tmp_path / "oracle.gguf", variant, beyond)


@pytest.mark.parametrize(("arch", "variant", "beyond"), SENTENCEPIECE)
def test_sentencepiece_models(
    arch: str, variant: Variant, beyond: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("sentencepiece", reason="trains the tokenizer (dev extra)")
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    tiny_model(arch, folder, variant)
    train(folder, variant.vocab)
    sampling = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage:\n- en\ntags:\n- tiny\n---\n# A model\n"
    )
    compare(folder, tmp_path / "oracle.gguf", variant, beyond)


def compare(folder: Path, out: Path, variant: Variant, beyond: tuple[str, ...]) -> None:
    """Convert with the oracle and compare; `beyond` are the keys that only trit writes."""
    kind = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[variant.dtype]
    script = Path(__file__).with_name("converter_oracle.py")
    subprocess.run(
        [sys.executable, str(script), SOURCES, str(folder), str(out), kind],
        check=True,
        capture_output=True,
    )
    with gguf.open(out) as oracle, checkpoint.open(folder) as ours:
        assert set(ours.values) - set(oracle.values) == set(beyond)
        for key, value in oracle.values.items():
            assert key in ours.values, key
            assert ours.values[key].type == value.type, key
            assert items(ours.metadata, key) == items(oracle.metadata, key), key
        assert set(ours.tensors) == set(oracle.tensors)
        for name, tensor in oracle.tensors.items():
            assert ours.tensors[name].shape == tensor.shape, name
            assert ours.tensors[name].format is tensor.format, name
            assert np.array_equal(ours.tensors[name].data, tensor.data), name


def items(metadata: Mapping[str, Any], key: str) -> Any:
    """A value to compare: arrays as lists, floats as a GGUF rounds them."""
    value = metadata[key]
    if isinstance(value, float):
        return np.float32(value)
    return value if isinstance(value, str | int) else list(value)
