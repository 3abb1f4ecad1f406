"""HQQ folders: their words as the format says, number by number, and as the hqq package reads them.

Without that package its tests are skipped; the decoder here shares nothing with trit's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_folder
from trit import cli
from trit.errors import InvalidFileError, TritError, UnsupportedError, UsageError
from trit.export import export
from trit.files import checkpoint, quantized, safetensors
from trit.files.quantized import hqq as layout
from trit.quantizers import hqq, rtn

BITS = (1, 2, 3, 4, 8)
GROUP = 16
UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"
# Of every linear, beside W_q, scale and zero: hqq.core.quantize.HQQLinear.state_dict_keys().
SETTINGS = {
    "nbits", "group_size", "shape", "axis", "packing", "unpack_view_dtype", "view_as_float",
    "quant_scale", "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict",
    "stores_quant_config", "channel_wise", "optimize", "round_zero",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_folder.write(tmp_path / "model")


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Everything in the folder's file, as numpy has it."""
    with safetensors.open(folder) as file:
        found = {name: tensor.decode().copy() for name, tensor in file.tensors.items()}
        return found | {name: each.numbers().copy() for name, each in file.stored.items()}


def code(words: np.ndarray, bits: int, row: int, column: int) -> int:
    """Code (row, column) by the format's description."""
    per = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}[bits]
    place, word = divmod(row, len(words))
    return int(words[word, column]) >> (per - 1 - place) * bits & ((1 << bits) - 1)


def meant(parts: dict[str, np.ndarray], module: str) -> np.ndarray:
    """The weights of a linear, float32, one by one."""
    words, scale, zero = (parts[f"{module}.{part}"] for part in ("W_q", "scale", "zero"))
    bits, group = int(parts[f"{module}.nbits"]), int(parts[f"{module}.group_size"])
    rows, cols = parts[f"{module}.shape"].tolist()
    out = np.empty(rows * cols, np.float32)
    along = int(parts[f"{module}.axis"]) == 1
    groups = rows * cols // group
    for at in range(rows * cols):
        row, column = divmod(at, group if along else groups)
        of = row if along else column
        level = np.float32(code(words, bits, row, column)) - np.float32(zero.flat[of])
        out[at] = level * np.float32(scale.flat[of])
    return out.reshape(rows, cols)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", ["hqq", "rtn"])
def test_what_is_chosen_is_what_the_format_says(
    model: Path, tmp_path: Path, bits: int, method: str
) -> None:
    out = tmp_path / "out"
    result = export(model, out, "hqq", bits=bits, group_size=GROUP, quantizer=method)
    parts = arrays(out)
    assert result.linears == 14
    with checkpoint.open(out) as read:
        for module, name in ((UP, "blk.0.ffn_up.weight"), (DOWN, "blk.1.ffn_down.weight")):
            weights = small_folder.weights()[f"{module}.weight"]
            if method == "hqq":
                grid = hqq.quantize_groups(weights, bits, GROUP, whole_zeros=False, zero_type="f16")
                assert not np.array_equal(grid.zeros, np.rint(grid.zeros))
            else:
                grid = rtn.quantize_groups(weights, bits, GROUP)
            assert np.array_equal(meant(parts, module), grid.weights())
            assert np.array_equal(read.tensors[name].decode(), grid.weights())


def test_zeros_that_need_not_be_whole_lose_less(model: Path, tmp_path: Path) -> None:
    weights = small_folder.weights()[f"{UP}.weight"]
    loss = {}
    for whole in (True, False):
        grid = hqq.quantize_groups(weights, 3, GROUP, whole_zeros=whole, zero_type="f16")
        loss[whole] = float((np.abs(grid.weights() - weights) ** 0.7).sum())
    assert loss[False] < loss[True]


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_what_stands_beside_a_linear(tmp_path: Path, kind: str) -> None:
    model, out = small_folder.write(tmp_path / "model", kind), tmp_path / "out"
    export(model, out, "hqq", bits=3, group_size=GROUP)
    found = arrays(out)
    assert {name.removeprefix(f"{UP}.") for name in found if name.startswith(UP)} == {
        "W_q", "scale", "zero", *SETTINGS
    }  # fmt: skip
    words = {part: bytes(found[f"{UP}.{part}"]).decode() for part in ("packing", "compute_dtype")}
    dtype = "torch.bfloat16" if kind == "bf16" else "torch.float16"
    assert words == {"packing": "3bit_32", "compute_dtype": dtype}
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "hqq" and config["skip_modules"] == ["lm_head"]
    assert config["quant_config"]["weight_quant_params"]["nbits"] == 3


def test_groups_along_the_outputs_are_read(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(model, out, "hqq", bits=4, group_size=GROUP)
    path = out / "config.json"
    with safetensors.open(out) as file:
        weights = quantized.open_weights(file, json.loads(path.read_text()), path)
        assert weights.about == "HQQ, 4 bits, groups of 16"
    random = np.random.default_rng(3)
    rows, cols, groups = 64, 32, 128
    change = {
        "axis": np.array(0, np.int32),
        "W_q": random.integers(0, 256, (GROUP // 2, groups)).astype(np.uint8),
        "scale": random.standard_normal((1, groups)).astype(np.float16),
        "zero": random.standard_normal((1, groups)).astype(np.float16),
    }
    rewrite(out, {f"{UP}.{part}": array for part, array in change.items()})
    parts = arrays(out)
    expected = meant(parts, UP)
    assert expected.shape == (rows, cols)
    with checkpoint.open(out) as read:
        assert np.array_equal(read.tensors["blk.0.ffn_up.weight"].decode(), expected)


def rewrite(folder: Path, change: dict[str, np.ndarray], drop: tuple[str, ...] = ()) -> None:
    """Put other arrays in the place of some, in the file that is there."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    whole = {name: each for name, each in load_file(path).items() if name not in drop}
    save_file(whole | change, path)


HOSTILE: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "shape": ({"shape": np.array([64, 31], np.int64)}, "W_q"),
    "huge": ({"shape": np.array([1 << 30, 1 << 30], np.int64)}, "W_q"),
    "negative": ({"shape": np.array([-64, -32], np.int64)}, "expected two sizes"),
    "group": ({"group_size": np.array(0, np.int32)}, "group_size"),
    "divisor": ({"group_size": np.array(17, np.int32)}, "group_size"),
    "axis": ({"axis": np.array(2, np.int32)}, "axis"),
    "words": ({"W_q": np.zeros((3, 16), np.uint8)}, "W_q"),
    "type": ({"W_q": np.zeros((64, 16), np.int32)}, "W_q"),
    "zero": ({"zero": np.zeros((5, 1), np.float16)}, "zero"),
    "bits": ({"nbits": np.array(5, np.int32)}, "5 bits packed as '4bit_u8' is not read"),
    "packing": ({"packing": np.frombuffer(b"8bit_u8", np.uint8)}, "4 bits packed as '8bit_u8'"),
    "scales": ({"quant_scale": np.array(1, np.uint8)}, "quant_scale is not read"),
    "vector": ({"nbits": np.array([4, 4], np.int32)}, "nbits"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_parts_that_do_not_fit_are_named(what: str, model: Path, tmp_path: Path) -> None:
    out, (change, words) = tmp_path / "out", HOSTILE[what]
    export(model, out, "hqq", group_size=GROUP)
    rewrite(out, {f"{UP}.{part}": array for part, array in change.items()})
    with pytest.raises(TritError, match=words):
        checkpoint.open(out)


def test_a_missing_part(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(model, out, "hqq", group_size=GROUP)
    rewrite(out, {}, drop=(f"{UP}.zero",))
    with pytest.raises(InvalidFileError, match=r"zero.*missing"):
        checkpoint.open(out)


def test_settings_that_no_folder_can_have(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="hqq of 5 bits: expected 1, 2, 3, 4, 8"):
        export(model, out, "hqq", bits=5, group_size=GROUP)
    with pytest.raises(UsageError, match="grids without zeros"):
        export(model, out, "hqq", group_size=GROUP, symmetric=True)
    monkeypatch.setitem(layout.PER_WORD, 1, 64)
    with pytest.raises(UnsupportedError, match="HQQ packs 64 groups to a word, got 32"):
        export(model, out, "hqq", bits=1, group_size=GROUP)
    assert not out.exists()


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["quantize", str(model), str(out), "--to", "hqq", "--group-size", "16", "--bits", "8"]
    assert cli.main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["type"], answer["quantizer"], answer["bits"]) == ("hqq", "hqq", 8)
    assert answer["bytes"] == sum(each.nbytes for each in raw(out).values())
    assert cli.main(["quantize", str(out), str(tmp_path / "again.gguf"), "Q8_0"]) in (0, 1)
    assert "HQQ, 8 bits" in capsys.readouterr().err


def raw(folder: Path) -> dict[str, np.ndarray]:
    with safetensors.open(folder) as file:
        found = {name: np.asarray(tensor.data) for name, tensor in file.tensors.items()}
        return found | {name: np.asarray(each.data) for name, each in file.stored.items()}


def layers(folder: Path) -> dict[str, Any]:
    """The linears as the hqq package loads them, computing in float32."""
    package = pytest.importorskip("hqq.core.quantize", reason="needs the package hqq")
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        module, _, part = name.rpartition(".")
        parts.setdefault(module, {})[part] = tensor
    found = {}
    for module, given in parts.items():
        if "W_q" in given:
            layer = package.HQQLinear(None, None, compute_dtype=torch.float32, device="cpu")
            assert layer.state_dict_keys() - {"bias"} <= given.keys()
            layer.load_state_dict(given)
            found[module] = layer
    return found


@pytest.mark.parametrize("bits", BITS)
def test_the_package_reads_the_same_weights(model: Path, tmp_path: Path, bits: int) -> None:
    out = tmp_path / "out"
    export(model, out, "hqq", bits=bits, group_size=GROUP)
    found = layers(out)
    assert len(found) == 14
    path = out / "config.json"
    with safetensors.open(out) as file:
        weights = quantized.open_weights(file, json.loads(path.read_text()), path)
        for module, layer in found.items():
            expected = weights[f"{module}.weight"].decode()
            assert np.array_equal(layer.dequantize().numpy(), expected), module


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_the_package_writes_is_read(model: Path, tmp_path: Path, bits: int, axis: int) -> None:
    package = pytest.importorskip("hqq.core.quantize", reason="needs the package hqq")
    torch = pytest.importorskip("torch")
    out = tmp_path / "out"
    export(model, out, "hqq", bits=bits, group_size=GROUP)
    linear = torch.nn.Linear(32, 64, bias=False)
    settings = package.BaseQuantizeConfig(nbits=bits, group_size=GROUP, axis=axis)
    layer = package.HQQLinear(linear, settings, compute_dtype=torch.float32, device="cpu")
    rewrite(out, {f"{UP}.{part}": each.numpy() for part, each in layer.state_dict().items()})
    with checkpoint.open(out) as read:
        found = read.tensors["blk.0.ffn_up.weight"].decode()
    assert np.array_equal(found, layer.dequantize().numpy())


@pytest.mark.parametrize(("arch", "bits"), [("llama", 4), ("qwen2", 3), ("gemma3", 8)])
def test_the_logits_are_those_of_the_package(arch: str, bits: int, tmp_path: Path) -> None:
    pytest.importorskip("hqq", reason="needs the package hqq")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parent / "archs"))
    from safetensors.torch import load_file
    from tiny import Variant, tiny_model

    from trit import archs
    from trit.reference import Reference

    source = tiny_model(arch, tmp_path / "model", Variant(tokenizer=True))
    out = tmp_path / "out"
    export(source, out, "hqq", bits=bits, group_size=32)
    config = transformers.AutoConfig.from_pretrained(source)
    net = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    found = layers(out)
    plain = load_file(out / "model.safetensors")
    kept = {n: x for n, x in plain.items() if n.rpartition(".")[0] not in found or "bias" in n}
    net.load_state_dict(kept, strict=False)
    for name, layer in found.items():
        parent, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, layer)
    tokens = np.random.default_rng(0).integers(0, 320, 40).tolist()
    with torch.no_grad(), checkpoint.open(out) as read:
        expected = net.eval()(torch.tensor([tokens])).logits[0].numpy()
        logits = Reference(archs.plan(read), read.tensors).forward(tokens).numpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
