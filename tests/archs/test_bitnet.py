"""BitNet b1.58: both architectures, and the published forms of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folders
import numpy as np
import packed
import pytest

from trit import archs
from trit.convert import convert
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import checkpoint, gguf, safetensors
from trit.files.quantized import bitnet
from trit.quantize import quantize

CONFIG = folders.CONFIG | {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet"}
RELU2 = CONFIG | {"hidden_act": "relu2"}
MULTIPLIED = {
    "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline",
}  # fmt: skip
DIVIDED = {"quant_method": "bitnet"}
MASTER = MULTIPLIED | {"quantization_mode": "online"}
LINEAR = "model.layers.1.mlp.up_proj"


def weights(names: tuple[str, str] = ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")) -> Any:
    arrays = folders.weights()
    random = np.random.default_rng(3)
    for i in range(folders.LAYERS):
        for name, size in zip(names, (folders.WIDTH, folders.INNER), strict=True):
            norm = random.standard_normal(size).astype(np.float32)
            arrays[f"model.layers.{i}.{name}.weight"] = norm
    return arrays


def is_linear(name: str, array: np.ndarray) -> bool:
    return array.ndim == 2 and "embed" not in name


def ternary(folder: Path, settings: dict[str, Any]) -> dict[str, tuple[np.ndarray, float]]:
    """A folder of packed digits; the digits and the number beside them of each linear."""
    random, arrays, known = np.random.default_rng(1), {}, {}
    for name, weight in weights().items():
        if not is_linear(name, weight):
            arrays[name] = weight
            continue
        digits = random.integers(-1, 2, weight.shape)
        scale = np.float32(random.uniform(0.5, 2))
        rows = len(digits) // 4
        data = np.zeros((rows, digits.shape[1]), np.uint8)
        for row in range(len(digits)):
            data[row % rows] |= (digits[row] + 1).astype(np.uint8) << (2 * (row // rows))
        arrays[name] = data
        arrays[name.removesuffix(".weight") + ".weight_scale"] = np.array([scale])
        known[name] = digits, float(scale)
    folder.mkdir()
    config = RELU2 | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "model.safetensors", arrays)
    return known


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As packed.save, but uint8 are bytes."""
    packed.save(path, arrays)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"F8_E4M3"', b'"U8"     '))


@pytest.mark.parametrize("settings", [MULTIPLIED, DIVIDED])
def test_packed_digits(settings: dict[str, Any], tmp_path: Path) -> None:
    known = ternary(tmp_path / "model", settings)
    with checkpoint.open(tmp_path / "model") as model:
        arch = archs.for_gguf("bitnet-b1.58")
        for name, (digits, scale) in known.items():
            unit = scale if settings is MULTIPLIED else 1 / scale
            found = model.tensors[str(arch.rename(name))].decode()
            assert np.allclose(found, digits * unit, rtol=1e-6)
        assert model.metadata["trit.source.quantization"] == "BitNet, packed ternary digits"
        assert archs.plan(model).layers[0].feed_forward.activation == "relu2"  # type: ignore[union-attr]


def test_packing_is_that_of_transformers() -> None:
    torch = pytest.importorskip("torch", reason="the oracle (dev extra)")
    integration = pytest.importorskip("transformers.integrations.bitnet")
    digits = np.random.default_rng(0).integers(-1, 2, (64, 48))
    expected = integration.pack_weights(torch.tensor(digits)).numpy()
    assert np.array_equal(bitnet.pack(digits), expected)
    assert np.array_equal(bitnet.unpack(expected), digits)


def test_a_master_is_rounded_as_transformers_rounds_it() -> None:
    torch = pytest.importorskip("torch", reason="the oracle (dev extra)")
    weights = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
    given = torch.tensor(weights)
    scale = 1.0 / given.abs().mean().clamp_(min=1e-5)
    expected = ((given * scale).round().clamp(-1, 1) / scale).numpy()
    found = bitnet.rounded(weights)
    assert np.allclose(found, expected, rtol=1e-6)
    assert len(np.unique(found)) == 3


@pytest.mark.parametrize("form", ["online", "first"])
def test_a_master_becomes_ternary(form: str, tmp_path: Path) -> None:
    arrays = weights()
    config = RELU2 | {"quantization_config": MASTER}
    if form == "first":
        arrays = weights(("self_attn.inner_attn_ln", "mlp.ffn_layernorm"))
        config = CONFIG | {"architectures": ["BitnetForCausalLM"]}
        config |= {"weight_bits": 1, "input_bits": 8}
    folder = folders.write(tmp_path / "model", config, arrays)
    with checkpoint.open(folder) as model:
        name = "bitnet" if form == "first" else "bitnet-b1.58"
        assert model.metadata["general.architecture"] == name
        found = model.tensors["blk.1.ffn_up.weight"].decode()
        assert np.array_equal(found, bitnet.rounded(arrays[LINEAR + ".weight"]))
        table = model.tensors["token_embd.weight"].decode()
        assert np.array_equal(table, arrays["model.embed_tokens.weight"])
    # Without a word about rounding it is a model of floats, as it is for transformers.
    plain = folders.write(tmp_path / "plain", RELU2, weights())
    with checkpoint.open(plain) as model:
        found = model.tensors["blk.1.ffn_up.weight"].decode()
        assert np.array_equal(found, weights()[LINEAR + ".weight"])


def test_which_architecture_it_is(tmp_path: Path) -> None:
    silu = CONFIG | {"hidden_act": "silu"}
    for number, (config, name) in enumerate(((RELU2, "bitnet-b1.58"), (silu, "bitnet"))):
        with checkpoint.open(folders.write(tmp_path / str(number), config, weights())) as model:
            assert model.metadata["general.architecture"] == name
            layer = archs.plan(model).layers[0]
            assert layer.mixer.sub_norm is not None
            assert layer.mixer.rope is not None and layer.mixer.rope.pairs == "halves"
    arrays = weights() | {"lm_head.weight": weights()["model.embed_tokens.weight"]}
    untied = folders.write(tmp_path / "u", silu | {"tie_word_embeddings": False}, arrays)
    with pytest.raises(UnsupportedError, match=r"llama\.cpp's takes the embedding"):
        checkpoint.open(untied)
    gelu = folders.write(tmp_path / "g", CONFIG | {"hidden_act": "gelu"}, weights())
    with pytest.raises(UnsupportedError, match="hidden_act 'gelu'"):
        checkpoint.open(gelu)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"linear_class": "linear"}, "linear_class"),
    ({"quantization_mode": "later"}, "quantization_mode"),
    ({"linear_class": 3}, "linear_class"),
]


@pytest.mark.parametrize(("change", "said"), INVALID)
def test_settings_that_make_no_sense(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    ternary(tmp_path / "model", MULTIPLIED | change)
    with pytest.raises(InvalidFileError, match=said):
        checkpoint.open(tmp_path / "model")


def test_bytes_that_make_no_sense(tmp_path: Path) -> None:
    ternary(tmp_path / "model", MULTIPLIED)
    file = tmp_path / "model" / "model.safetensors"
    with safetensors.open(tmp_path / "model") as given:
        arrays = {
            name: np.asarray(part.data).view(np.uint8).reshape(part.shape).copy()
            for name, part in given.stored.items()
        }
        floats = {name: tensor.decode().copy() for name, tensor in given.tensors.items()}

    def changed(**parts: np.ndarray) -> None:
        new = {f"{LINEAR}.{name}": array for name, array in parts.items()}
        save(file, {**floats, **arrays, **new})

    three = arrays[f"{LINEAR}.weight"].copy()
    three[2, 5] |= 0b11
    changed(weight=three)
    with (
        checkpoint.open(tmp_path / "model") as model,
        pytest.raises(InvalidFileError, match=r"up_proj.*got 2 at \[2, 5\]"),
    ):
        model.tensors["blk.1.ffn_up.weight"].decode()
    changed(weight_scale=np.array([np.nan], np.float32))
    with (
        checkpoint.open(tmp_path / "model") as model,
        pytest.raises(InvalidFileError, match="finite number"),
    ):
        model.tensors["blk.1.ffn_up.weight"].decode()
    changed(weight_scale=np.ones(2, np.float32))
    with pytest.raises(InvalidFileError, match="expected one number"):
        checkpoint.open(tmp_path / "model")


def test_ternary_files_hold_what_the_folder_holds(tmp_path: Path) -> None:
    """TQ1_0 and TQ2_0 are exact up to the unit's rounding to half floats."""
    wide = CONFIG | {"hidden_act": "relu2", "hidden_size": 256, "intermediate_size": 512}
    wide |= {"num_hidden_layers": 1, "quantization_config": MASTER}
    random = np.random.default_rng(0)
    arrays = {}
    for name, weight in weights().items():
        if "layers.1" in name:
            continue
        sizes = [{32: 256, 64: 512, 16: 128}.get(size, size) for size in weight.shape]
        arrays[name] = random.standard_normal(sizes).astype(np.float32)
    folder = folders.write(tmp_path / "model", wide, arrays)
    for type in ("TQ1_0", "TQ2_0"):
        quantize(folder, tmp_path / "out.gguf", type)
        with checkpoint.open(folder) as source, gguf.open(tmp_path / "out.gguf") as made:
            tensor = made.tensors["blk.0.ffn_down.weight"]
            assert tensor.format.name == type.lower()
            expected = source.tensors["blk.0.ffn_down.weight"].decode()
            assert np.allclose(tensor.decode(), expected, rtol=1e-3)
    convert(folder, tmp_path / "f16.gguf", "f16")
    with gguf.open(tmp_path / "f16.gguf") as made:
        assert len(np.unique(made.tensors["blk.0.ffn_down.weight"].decode())) == 3
