"""Safetensors against the package that defines the format."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from trit.errors import InvalidFileError, UnsupportedError
from trit.files import safetensors

package = pytest.importorskip("safetensors.numpy")


@pytest.mark.parametrize("seed", range(20))
def test_what_the_package_writes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtypes = ["float32", "float16", "int64", "int8", "bool", "float64", "uint16"]
    arrays = {}
    for number in range(int(rng.integers(1, 20))):
        shape = tuple(int(n) for n in rng.integers(0, 5, rng.integers(0, 5)))
        name = str(rng.choice(["w", 'q"uote', "ünï", "new\nline", "𝄞"])) + str(number)
        weights = rng.normal(size=shape) * 9
        arrays[name] = np.asarray(weights, dtype=str(rng.choice(dtypes)))
    metadata = {"format": "pt", "é": 'a "quoted" \\ word'} if seed % 2 else None
    package.save_file(arrays, tmp_path / "m.safetensors", metadata)
    with safetensors.open(tmp_path / "m.safetensors") as file:
        assert file.metadata == (metadata or {})
        assert file.tensors.keys() | file.stored.keys() == arrays.keys()
        for name, tensor in file.tensors.items():
            expected = arrays[name].astype(np.float32)
            assert tensor.shape == (expected.shape or (1,))
            np.testing.assert_array_equal(tensor.decode(), expected.reshape(tensor.shape))
        for name in file.stored:
            assert arrays[name].dtype not in (np.float32, np.float16)


def test_bfloat16(tmp_path: Path) -> None:
    weights = np.array([[1.0, -2.5, 3e38], [0.0, -0.0, 1e-40]], dtype=np.float32)
    bits = (weights.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    header += b" " * 5  # producers pad with spaces
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    with safetensors.open(path) as file:
        decoded = file["w"].decode()
        assert file["w"].format.name == "bf16"
    np.testing.assert_array_equal(decoded.view(np.uint32) >> 16, bits)


def test_asking_for_other_types_is_refused_by_name(tmp_path: Path) -> None:
    package.save_file({"ids": np.arange(3)}, tmp_path / "m.safetensors")
    with safetensors.open(tmp_path / "m.safetensors") as file:
        with pytest.raises(UnsupportedError, match="tensor 'ids' is of type I64; trit reads F32"):
            file["ids"]
        with pytest.raises(InvalidFileError, match="tensor 'x': expected among the 0 tensors"):
            file["x"]


def test_a_folder_of_one_file_and_of_several(tmp_path: Path) -> None:
    package.save_file({"b": np.ones(2, np.float32)}, tmp_path / "two.safetensors", {"k": "2"})
    package.save_file({"a": np.ones(3, np.float32)}, tmp_path / "one.safetensors", {"k": "1"})
    with safetensors.open(tmp_path) as file:
        assert list(file.tensors) == ["a", "b"]
        assert file.metadata == {"k": "1"}
    package.save_file({"c": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with safetensors.open(tmp_path) as file:
        assert list(file.tensors) == ["c"]
    (tmp_path / "model.safetensors").unlink()
    package.save_file({"a": np.ones(1, np.float32)}, tmp_path / "three.safetensors")
    with pytest.raises(InvalidFileError, match="tensor 'a': expected in one file"):
        safetensors.open(tmp_path)


def test_a_file_of_several_that_is_missing_is_named(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        name = f"model-0000{number}-of-00003.safetensors"
        package.save_file({f"w{number}": np.ones(2, np.float32)}, tmp_path / name)
    with safetensors.open(tmp_path) as file:
        assert list(file.tensors) == ["w1", "w2", "w3"]
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InvalidFileError, match=r"00002-of-00003\.safetensors: expected all 3"):
        safetensors.open(tmp_path)


def test_arrays_outlive_the_file(tmp_path: Path) -> None:
    package.save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "m.safetensors")
    file = safetensors.open(tmp_path / "m.safetensors")
    tensor = file["a"]
    file.close()
    assert tensor.decode().tolist() == [0, 1, 2]
    assert not file.tensors
