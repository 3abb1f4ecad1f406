"""Folders that trit writes, loaded by transformers: the logits are those of trit's own engine.

compressed-tensors folders are loaded as they are. For AWQ transformers wants a package of GPU
kernels; here the reader of the compressed-tensors package takes the folder's words instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the tiny models need torch (dev extra)")
pytest.importorskip("transformers", reason="transformers loads the folders (dev extra)")
pytest.importorskip("compressed_tensors", reason="transformers needs it to load such folders")
sys.path.insert(0, str(Path(__file__).parent / "archs"))

from safetensors.torch import load_file  # noqa: E402
from tiny import Variant, tiny_model  # noqa: E402

from trit import archs  # noqa: E402
from trit.engine import Engine, Rows  # noqa: E402
from trit.export import export  # noqa: E402
from trit.files import checkpoint  # noqa: E402
from trit.reference import Reference  # noqa: E402

torch.set_num_threads(1)

TOKENS = np.random.default_rng(0).integers(0, 320, 70).tolist()
GROUP = 32
EXACT, ENGINE = 1e-5, 1e-3  # of the largest logit


def logits(model: Any) -> np.ndarray:
    """(n, vocab) of float32."""
    with torch.no_grad():
        return model.eval()(torch.tensor([TOKENS])).logits[0].numpy()


def loaded(folder: Path) -> Any:
    """The model as transformers opens the folder, its linears packed."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    tensors = [*model.named_buffers(), *model.named_parameters()]
    assert any("weight_packed" in name for name, _ in tensors)
    return model


def unpacked(folder: Path, tensors: Mapping[str, Any], bits: int) -> Any:
    """The model of transformers with weights that the compressed-tensors package has unpacked.

    Its release 0.20.0 packs the zeros of no model that transformers loads, so that those of every
    folder seem to have the wrong shape; earlier ones do, and load these folders as they are.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from transformers import AutoConfig, AutoModelForCausalLM

    args = QuantizationArgs(num_bits=bits, group_size=GROUP, symmetric=False, strategy="group")
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    tool = BaseCompressor.load_from_registry("pack-quantized")
    parts = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
    plain = {name: x for name, x in tensors.items() if not name.endswith(parts)}
    for name in tensors:
        if name.endswith(".weight_packed"):
            module = name.removesuffix(".weight_packed")
            given = {part: tensors[f"{module}.{part}"] for part in parts}
            given["weight_scale"] = given["weight_scale"].float()
            plain[f"{module}.weight"] = tool.decompress(given, scheme)["weight"]
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    lost = model.load_state_dict(plain, strict=False)
    assert not lost.unexpected_keys and set(lost.missing_keys) <= {"lm_head.weight"}
    return model


def compare(folder: Path, expected: np.ndarray) -> None:
    with checkpoint.open(folder) as model, torch.no_grad():
        plan = archs.plan(model)
        found = Reference(plan, model.tensors).forward(TOKENS).numpy()
        engine = Engine(plan, model.tensors, 1, len(TOKENS), cache_type="f32")
        run = engine.forward(Rows.of(TOKENS), range(len(TOKENS)))
    largest = np.abs(expected).max()
    assert np.abs(found - expected).max() < EXACT * largest
    assert np.abs(run - expected).max() < ENGINE * largest


@pytest.mark.parametrize(
    ("arch", "bits", "dtype"),
    [("llama", 4, "float32"), ("qwen2", 4, "bfloat16"), ("gemma3", 8, "float32"),
     ("llama", 3, "float16"), ("phi3", 4, "float32"), ("qwen3", 4, "float16")],
)  # fmt: skip
def test_compressed_tensors(arch: str, bits: int, dtype: str, tmp_path: Path) -> None:
    source = tiny_model(arch, tmp_path / "model", Variant(dtype=dtype, tokenizer=True))
    whole, even = tmp_path / "whole", tmp_path / "even"
    export(source, even, "compressed-tensors", bits=bits, group_size=GROUP, symmetric=True)
    compare(even, logits(loaded(even)))
    export(source, whole, "compressed-tensors", bits=bits, group_size=GROUP)
    compare(whole, logits(unpacked(whole, load_file(whole / "model.safetensors"), bits)))


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_compressed_tensors_with_zeros_as_they_are(arch: str, tmp_path: Path) -> None:
    source, out = tiny_model(arch, tmp_path / "model", Variant(tokenizer=True)), tmp_path / "out"
    export(source, out, "compressed-tensors", group_size=GROUP)
    try:
        model = loaded(out)
    except RuntimeError:
        pytest.skip("this compressed-tensors does not load zeros, whoever wrote them")
    compare(out, logits(model))


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_awq_read_by_another(arch: str, tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "compressed_tensors.entrypoints.convert.converters.autoawq",
        reason="an older compressed-tensors has no reader of AWQ",
    )
    source = tiny_model(arch, tmp_path / "model", Variant(tokenizer=True, tied=True))
    out = tmp_path / "out"
    export(source, out, "awq", group_size=GROUP)
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    converter = reader.AutoAWQConverter.from_autoawq_config(config)
    tensors = converter.process(load_file(out / "model.safetensors"))
    compare(out, logits(unpacked(out, tensors, 4)))
