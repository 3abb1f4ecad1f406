"""Folders that are quantized already: what their words mean, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import folders
import numpy as np
import packed
import pytest
from packed import GROUP, Arrays

from trit import archs, cli
from trit.convert import convert
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import checkpoint, gguf, quantized, safetensors
from trit.files.quantized import _fp8
from trit.quantize import quantize

AWQ = {
    "quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm",
}  # fmt: skip
LINEAR = {
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.v_proj": "attn_v",
}  # fmt: skip

Make = Callable[[int, int, np.random.Generator], Arrays]
Weigh = Callable[[Arrays], np.ndarray]


def gptq(bits: int, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": GROUP} | more


def compressed(layout: str, **weights: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "group"} | weights
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {
        "quant_method": "compressed-tensors", "format": layout, "config_groups": groups,
        "quantization_status": "compressed", "ignore": ["lm_head"],
    }  # fmt: skip


def packing(bits: int, **more: Any) -> dict[str, Any]:
    return compressed("pack-quantized", num_bits=bits, group_size=GROUP, **more)


CASES: dict[str, tuple[dict[str, Any], Make, Weigh]] = {
    "awq": (AWQ, packed.awq_parts, packed.awq_weight),
    **{
        f"gptq-{bits}": (
            gptq(bits), partial(packed.gptq_parts, bits=bits),
            partial(packed.gptq_weight, bits=bits),
        )
        for bits in (2, 3, 4, 8)
    },
    "gptq-v2": (
        gptq(4, checkpoint_format="gptq_v2"), packed.gptq_parts, partial(packed.gptq_weight, add=0)
    ),
    "gptq-order": (
        gptq(4, desc_act=True), partial(packed.gptq_parts, order=True), packed.gptq_weight
    ),
    **{
        f"packed-{bits}": (
            packing(bits), partial(packed.packed_parts, bits=bits),
            partial(packed.packed_weight, bits=bits),
        )
        for bits in (2, 3, 4, 5, 8)
    },
    "packed-zeros": (
        packing(4, symmetric=False), partial(packed.packed_parts, symmetric=False),
        packed.packed_weight,
    ),
}  # fmt: skip


def blocks(rows: int, cols: int, random: np.random.Generator) -> Arrays:
    """FP8 in blocks of 24 × 20, which divide nothing."""
    high, wide = -(-rows // 24), -(-cols // 20)
    return {
        "weight": packed.fp8_codes(random, rows, cols),
        "weight_scale_inv": random.random((high, wide)).astype(np.float32),
    }


def one_scale(
    rows: int, cols: int, random: np.random.Generator, shape: tuple[int, ...], name: str
) -> Arrays:
    shape = tuple(rows if size < 0 else size for size in shape)
    return {
        "weight": packed.fp8_codes(random, rows, cols),
        name: random.random(shape).astype(np.float32),
        "input_scale": np.ones(1, np.float32),
    }


def fp8_weight(parts: Arrays) -> np.ndarray:
    codes, scale = parts["weight"], next(a for n, a in parts.items() if "weight_scale" in n)
    if scale.ndim == 2 and scale.shape[1] > 1:
        return packed.fp8_weight(codes, scale, 24, 20)
    return packed.fp8_weight(codes, scale.reshape(-1, 1), len(codes) // scale.size, codes.shape[1])


FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
FLOAT = compressed("float-quantized", type="float", strategy="channel")
CASES |= {
    "fp8-blocks": (FP8 | {"weight_block_size": [24, 20]}, blocks, fp8_weight),
    "fp8-one": (FP8, partial(one_scale, shape=(), name="weight_scale"), fp8_weight),
    "fp8-rows": (
        {"quant_method": "fbgemm_fp8"}, partial(one_scale, shape=(-1, 1), name="weight_scale"),
        fp8_weight,
    ),
    "float-one": (FLOAT, partial(one_scale, shape=(1,), name="weight_scale"), fp8_weight),
    "float-rows": (FLOAT, partial(one_scale, shape=(-1, 1), name="weight_scale"), fp8_weight),
}  # fmt: skip


def int8_parts(rows: int, cols: int, random: np.random.Generator) -> Arrays:
    return {
        "weight": random.integers(-128, 128, (rows, cols)).astype(np.int8),
        "weight_scale": packed.scales(random, rows, 1),
        "weight_zero_point": random.integers(-128, 128, (rows, 1)).astype(np.int8),
    }


def int8_weight(parts: Arrays) -> np.ndarray:
    codes = parts["weight"].astype(np.float64) - parts["weight_zero_point"]
    return codes * parts["weight_scale"].astype(np.float64)


CASES["int8"] = (
    compressed("int-quantized", symmetric=False, strategy="channel"), int8_parts, int8_weight
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_words_mean_what_the_format_says(case: str, tmp_path: Path) -> None:
    quantization, make, weigh = CASES[case]
    folder, arrays = packed.write(tmp_path / "model", quantization, make)
    with checkpoint.open(folder) as model:
        assert model.stored_bytes == sum(array.nbytes for array in arrays.values())
        assert len(model.tensors) == len(folders.weights())
        assert archs.plan(model).layers[1].mixer.q.rows == folders.WIDTH
        for name, ours in LINEAR.items():
            prefix = f"model.layers.1.{name}."
            parts = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            tensor = model.tensors[f"blk.1.{ours}.weight"]
            assert tensor.format.name == "f32"
            assert np.array_equal(tensor.decode(), weigh(parts).astype(np.float32))


def test_scales_of_bfloat16(tmp_path: Path) -> None:
    def make(rows: int, cols: int, random: np.random.Generator) -> Arrays:
        parts = packed.packed_parts(rows, cols, random)
        exact = parts["weight_scale"].astype(np.float32)
        return parts | {"weight_scale": (exact.view(np.uint32) >> 16).astype(np.uint16)}

    folder, arrays = packed.write(tmp_path / "model", packing(4), make)
    prefix = "model.layers.0.mlp.up_proj."
    parts = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    scale = (parts["weight_scale"].astype(np.uint32) << 16).view(np.float32)
    expected = packed.packed_weight(parts | {"weight_scale": scale})
    with checkpoint.open(folder) as model:
        assert np.array_equal(model.tensors["blk.0.ffn_up.weight"].decode(), expected)


def test_groups_by_index_and_groups_cut_short(tmp_path: Path) -> None:
    cols = 24

    def make(rows: int, _: int, random: np.random.Generator) -> Arrays:
        return packed.packed_parts(rows, 32, random) | {
            "weight_packed": packed.words(random, rows, cols * 4 // 32),
            "weight_shape": np.array([rows, cols], np.int64),
        }

    parts = make(8, cols, np.random.default_rng(0))
    order = np.random.default_rng(1).integers(0, 2, cols).astype(np.int32)
    none = np.full(cols, -1, np.int32)
    for extra in ({}, {"weight_g_idx": order}, {"weight_g_idx": none}):
        packed.save(tmp_path / "m.safetensors", {f"x.{n}": a for n, a in (parts | extra).items()})
        meant = {} if extra.get("weight_g_idx") is none else extra
        with safetensors.open(tmp_path / "m.safetensors") as file:
            config = {"quantization_config": packing(4)}
            weights = quantized.open_weights(file, config, "config.json")
            assert weights.names == ("x.weight",)
            expected = packed.packed_weight(parts | meant)
            assert np.array_equal(weights["x.weight"].decode(), expected)


def test_every_float_of_eight_bits() -> None:
    assert np.array_equal(
        _fp8.table("F8_E4M3"), [packed.e4m3(code) for code in range(256)], equal_nan=True
    )
    torch = pytest.importorskip("torch", reason="its floats of 8 bits are the oracle (dev extra)")
    codes = torch.arange(256, dtype=torch.uint8)
    for name, dtype in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        assert np.array_equal(_fp8.table(name), codes.view(dtype).float().numpy(), equal_nan=True)


def test_a_folder_is_converted_shown_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arrays = packed.write(tmp_path / "model", *CASES["awq"][:2])
    out = tmp_path / "out.gguf"
    result = convert(folder, out, "f32")
    assert any("quantized already (AWQ, 4 bits, groups of 16)" in text for text in result.warnings)
    with checkpoint.open(folder) as model, gguf.open(out) as file:
        for name, tensor in model.tensors.items():
            assert np.array_equal(file.tensors[name].decode(), tensor.decode()), name
        assert file.metadata["trit.source.quantization"] == "AWQ, 4 bits, groups of 16"
    again = quantize(folder, None, "Q8_0", dry_run=True)
    assert any("rounding it again" in text for text in again.warnings)
    assert cli.main(["show", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    stored = sum(array.nbytes for array in arrays.values())
    assert shown["quantization"] == "AWQ, 4 bits, groups of 16"
    assert shown["tensor_bytes"] == stored
    for path, kind in ((folder, "DECODED TO"), (out, "TYPE")):
        assert cli.main(["show", str(path), "--tensors"]) == 0
        said = capsys.readouterr().out
        assert "AWQ, 4 bits" in said and f"\n{kind}  " in said and f"  {kind}  " in said
    for path, words in ((folder, " decoded) -> "), (out, "B) -> ")):
        assert cli.main(["convert", str(path), "-o", str(tmp_path / "again.gguf")]) == 0
        assert words in capsys.readouterr().err


def change(parts: Arrays, name: str, array: np.ndarray | None) -> Arrays:
    rest = {key: value for key, value in parts.items() if key != name}
    return rest if array is None else rest | {name: array}


HOSTILE: dict[str, tuple[str, str, np.ndarray | None, str]] = {
    "no zeros": ("awq", "qzeros", None, "qzeros': missing; beside it are"),
    "no scales": ("gptq-4", "scales", None, "scales': missing"),
    "no words": ("gptq-4", "qweight", None, "missing; of this linear there is only"),
    "zeros of floats": ("awq", "qzeros", np.ones((2, 8), np.float32), "expected type I32, got F32"),
    "scales of integers": ("awq", "scales", np.ones((2, 64), np.int8), "got I8"),
    "few scales": ("awq", "scales", np.ones((1, 64), np.float16), "expected shape"),
    "odd inputs": ("awq", "qweight", np.ones((40, 8), np.int32), "expected a multiple of 16"),
    "a vector": ("awq", "qweight", np.ones(64, np.int32), "expected a matrix"),
    "no inputs": ("gptq-4", "qweight", np.ones((0, 64), np.int32), "expected a matrix"),
    "words cut": ("gptq-3", "qweight", np.ones((4, 64), np.int32), "no whole codes of 3 bits"),
    "few groups": ("gptq-4", "qzeros", np.ones((1, 8), np.int32), "expected shape"),
    "no shape": ("packed-4", "weight_shape", None, "weight_shape': missing"),
    "a wild shape": (
        "packed-4", "weight_shape", np.array([1 << 40, 8]), "expected two sizes",
    ),
    "another shape": ("packed-4", "weight_shape", np.array([64, 64]), "weights of 4 bits"),
    "groups of 8": ("packed-4", "weight_scale", np.ones((64, 4), np.float16), "groups of 16"),
    "zeros missing": ("packed-zeros", "weight_zero_point", None, "says not symmetric"),
    "no scale": ("fp8-blocks", "weight_scale_inv", None, "weight_scale_inv': missing"),
    "wrong blocks": (
        "fp8-blocks", "weight_scale_inv", np.ones((1, 2), np.float32), "one per block of 24 × 20",
    ),
    "int8 without": ("int8", "weight_scale", None, "weight_scale': missing"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_parts_that_do_not_fit_are_named(what: str, tmp_path: Path) -> None:
    case, name, array, words = HOSTILE[what]
    quantization, make, _ = CASES[case]

    def broken(rows: int, cols: int, random: np.random.Generator) -> Arrays:
        parts = make(rows, cols, random)
        return change(parts, name, array) if (rows, cols) == (64, 32) else parts

    folder, _ = packed.write(tmp_path / "model", quantization, broken)
    with pytest.raises(InvalidFileError, match=words) as error:
        checkpoint.open(folder)
    assert "gate_proj" in str(error.value) or "up_proj" in str(error.value)


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    def broken(rows: int, cols: int, random: np.random.Generator) -> Arrays:
        parts = packed.gptq_parts(rows, cols, random, order=True)
        parts["g_idx"][3] = 2 if cols == 32 else -1
        return parts

    folder, _ = packed.write(tmp_path / "model", gptq(4), broken)
    with checkpoint.open(folder) as model:
        with pytest.raises(InvalidFileError, match="groups below 2, got 2 for column 3"):
            _ = model.tensors["blk.0.ffn_up.weight"].data
        with pytest.raises(InvalidFileError, match="got -1 for column 3"):
            _ = model.tensors["blk.0.ffn_down.weight"].data


def test_a_scale_that_is_no_number_is_found_before_it_is_written(tmp_path: Path) -> None:
    def broken(rows: int, cols: int, random: np.random.Generator) -> Arrays:
        parts = packed.awq_parts(rows, cols, random)
        parts["scales"][0, 5] = np.nan
        return parts

    folder, _ = packed.write(tmp_path / "model", AWQ, broken)
    with pytest.raises(InvalidFileError, match="expected a finite weight, got nan"):
        convert(folder, tmp_path / "out.gguf", "f16")
    assert not (tmp_path / "out.gguf").exists()


def test_quantized_and_plain_at_once(tmp_path: Path) -> None:
    def both(rows: int, cols: int, random: np.random.Generator) -> Arrays:
        return packed.awq_parts(rows, cols, random) | {"weight": np.ones((rows, cols), np.float16)}

    folder, _ = packed.write(tmp_path / "model", AWQ, both)
    with pytest.raises(InvalidFileError, match="there, and quantized as well"):
        checkpoint.open(folder)


@pytest.mark.parametrize(
    ("case", "settings", "words"),
    [
        ("awq", {"quant_method": "bitsandbytes"}, "quantized by 'bitsandbytes' are not read"),
        ("awq", {"quant_method": None}, "quantized by '' are not read"),
        ("awq", AWQ | {"version": "gemv"}, "layout 'gemv'"),
        ("awq", AWQ | {"bits": 3}, "AWQ of 3 bits"),
        ("awq", AWQ | {"zero_point": False}, "without zero points"),
        ("gptq-4", gptq(5), "GPTQ of 5 bits"),
        ("gptq-4", gptq(4, checkpoint_format="marlin"), "layout 'marlin'"),
        ("gptq-4", gptq(4, dynamic={"+:x": {"bits": 8}}), "'dynamic'"),
        ("packed-4", packing(4) | {"format": "nvfp4-pack-quantized"}, "'nvfp4-pack-quantized'"),
        ("packed-4", packing(4) | {"transform_config": {"config_groups": {}}}, "transforms"),
        ("packed-4", packing(4) | {"sparsity_config": {"format": "sparse-24"}}, "sparse"),
        ("packed-4", packing(16), "16 bits of int"),
    ],
)
def test_variants_that_are_not_read(
    case: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder, _ = packed.write(tmp_path / "model", settings, CASES[case][1])
    with pytest.raises(UnsupportedError, match=words):
        checkpoint.open(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (3, "expected an object"),
        (AWQ | {"bits": "4"}, "bits': expected a whole number"),
        ({"quant_method": "awq", "bits": 4}, "group_size': missing"),
        (AWQ | {"group_size": 0}, "expected -1 or a positive number"),
        (AWQ | {"version": 2}, "expected a word"),
        (FP8 | {"weight_block_size": [128]}, "expected two sizes"),
        (packing(4) | {"config_groups": [1]}, "config_groups': expected an object"),
        (packing(4) | {"config_groups": {"a": 1}}, "config_groups.a': expected an object"),
        (packing(4, symmetric="no"), "expected true or false"),
        (packing(4) | {"config_groups": {}}, "no number of bits"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, words: str, tmp_path: Path) -> None:
    folder, _ = packed.write(tmp_path / "model", settings, CASES["packed-4"][1])
    with pytest.raises(InvalidFileError, match=words):
        checkpoint.open(folder)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_against_the_package_of_compressed_tensors(
    bits: int, symmetric: bool, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="for compressed-tensors (dev extra)")
    pytest.importorskip("compressed_tensors", reason="is the oracle")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=bits, group_size=GROUP, symmetric=symmetric, strategy="group")
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    torch.manual_seed(bits)
    given = {"weight": torch.randn(40, 48), "weight_scale": torch.rand(40, 3) / 2**bits}
    if not symmetric:
        half = 1 << (bits - 1)
        given["weight_zero_point"] = torch.randint(-half, half, (40, 3), dtype=torch.int8)
    tool = BaseCompressor.load_from_registry("pack-quantized")
    stored = tool.compress(given, scheme)
    expected = tool.decompress(stored, scheme)["weight"].numpy()
    packed.save(tmp_path / "m.safetensors", {f"x.{n}": t.numpy() for n, t in stored.items()})
    with safetensors.open(tmp_path / "m.safetensors") as file:
        config = {"quantization_config": packing(bits, symmetric=symmetric)}
        weights = quantized.open_weights(file, config, "config.json")["x.weight"].decode()
    assert np.array_equal(weights, expected)
