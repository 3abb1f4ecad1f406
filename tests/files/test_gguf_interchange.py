"""Against the gguf package: either reads what the other writes; real files come out equal."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trit import formats
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import gguf

package = pytest.importorskip("gguf")

SEEDS = range(12)
FORMATS = [format for format in formats.all().values() if format.ggml_type < 41]


def random_tensors(rng: np.random.Generator) -> list[gguf.Tensor]:
    """Tensors of every type that the package knows, of one to four dimensions."""
    tensors = []
    for number, format in enumerate(FORMATS):
        leading = tuple(int(n) for n in rng.integers(1, 4, rng.integers(0, 4)))
        shape = (*leading, int(rng.integers(1, 4)) * format.block_weights)
        rows = (*leading, format.row_bytes(shape[-1]))
        data = rng.integers(0, 256, rows, dtype=np.uint8)
        tensors.append(gguf.Tensor(f"blk.{number}.{format.name}", shape, format, data))
    return tensors


def random_metadata(rng: np.random.Generator) -> dict[str, gguf.Value]:
    kinds = gguf.ValueType
    values = {"general.architecture": gguf.Value(kinds.STRING, "llama")}
    words = ["", "a", "é" * int(rng.integers(300)), "\n"]
    for number in range(int(rng.integers(30))):
        kind = kinds(int(rng.choice([k for k in kinds if k is not kinds.ARRAY])))
        count = int(rng.integers(1, 20))
        if kind is kinds.STRING:
            value: gguf.Plain = str(rng.choice(words))
            array: gguf.Plain = [str(word) for word in rng.choice(words, count)]
        else:
            drawn = rng.integers(0, 2 if kind is kinds.BOOL else 100, count)
            value, array = drawn[0].item(), drawn.tolist()
            if kind is kinds.BOOL:
                value, array = bool(value), [bool(item) for item in array]
        values[f"trit.key{number}"] = gguf.Value(kind, array if rng.integers(2) else value)
    if rng.integers(2):
        values["general.alignment"] = gguf.Value(kinds.UINT32, int(rng.choice([8, 32, 64, 512])))
    return values


def contents(value: gguf.Plain) -> object:
    return value if isinstance(value, str | int | float) else list(value)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_package_reads_what_we_write(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, tensors = random_metadata(rng), random_tensors(rng)
    gguf.write(tmp_path / "m.gguf", values, tensors)
    reader = package.GGUFReader(tmp_path / "m.gguf")
    for key, value in values.items():
        field = reader.get_field(key)
        assert field.contents() == contents(value.value)
        types = [gguf.ValueType.ARRAY, value.type] if value.is_array else [value.type]
        assert [int(kind) for kind in field.types] == types
    assert [each.name for each in reader.tensors] == [tensor.name for tensor in tensors]
    for theirs, ours in zip(reader.tensors, tensors, strict=True):
        assert tuple(theirs.shape[::-1].tolist()) == ours.shape
        assert int(theirs.tensor_type) == ours.format.ggml_type
        assert np.ascontiguousarray(theirs.data).tobytes() == ours.data.tobytes()


def write_with_package(
    path: Path, values: dict[str, gguf.Value], tensors: list[gguf.Tensor]
) -> None:
    writer = package.GGUFWriter(path, "llama")
    for key, value in values.items():
        if key == "general.architecture":
            continue
        if key == "general.alignment":
            writer.add_custom_alignment(value.value)
        elif value.is_array:
            kind, item = package.GGUFValueType.ARRAY, package.GGUFValueType(value.type)
            writer.add_key_value(key, contents(value.value), kind, sub_type=item)
        else:
            writer.add_key_value(key, value.value, package.GGUFValueType(value.type))
    for tensor in tensors:
        kind = package.GGMLQuantizationType(tensor.format.ggml_type)
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_we_read_what_the_package_writes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    values, tensors = random_metadata(rng), random_tensors(rng)
    write_with_package(tmp_path / "theirs.gguf", values, tensors)
    with gguf.open(tmp_path / "theirs.gguf") as file:
        assert file.values.keys() == values.keys()
        for key, value in values.items():
            assert file.values[key].type is value.type
            assert contents(file.metadata[key]) == contents(value.value)
        for tensor in tensors:
            assert file[tensor.name].shape == tensor.shape
            np.testing.assert_array_equal(file[tensor.name].data, tensor.data)
        gguf.write(tmp_path / "ours.gguf", file.values, file.tensors.values())
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize("big_endian", [False, True])
def test_byte_order(tmp_path: Path, big_endian: bool) -> None:
    order = package.GGUFEndian.BIG if big_endian else package.GGUFEndian.LITTLE
    writer = package.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=order)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    if not big_endian:
        assert gguf.open(tmp_path / "m.gguf").metadata == {"general.architecture": "llama"}
        return
    with pytest.raises(InvalidFileError, match="byte-swapped"):
        gguf.open(tmp_path / "m.gguf")


def test_shards_of_the_package_are_one_model(tmp_path: Path) -> None:
    tensors = {f"t{n}": np.full((4, 32), n, dtype=np.float32) for n in range(5)}
    writer = package.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    writer.add_string("general.name", "in three")
    for name, weights in tensors.items():
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    paths = sorted(tmp_path.glob("*.gguf"))
    assert [path.name for path in paths] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for path in paths:  # any of them will do
        with gguf.open(path) as file:
            assert file.paths == paths
            assert file.metadata["general.name"] == "in three"
            for name, weights in tensors.items():
                np.testing.assert_array_equal(file[name].decode(), weights)


@pytest.mark.parametrize(
    "name", ["smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct"]
)
def test_real_models(name: str, zoo_model: Callable[[str], Path], tmp_path: Path) -> None:
    path = zoo_model(name)
    seconds = []
    for _ in range(4):
        start = time.process_time()
        file = gguf.open(path)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.150
    tensor = file["blk.0.attn_q.weight"]
    reader_type = package.GGMLQuantizationType(tensor.format.ggml_type)
    expected = package.dequantize(tensor.data, reader_type)
    np.testing.assert_array_equal(tensor.decode(), expected)
    if path.stat().st_size < 300_000_000:
        gguf.write(tmp_path / "copy.gguf", file.values, file.tensors.values())
        assert gguf.sha256(tmp_path / "copy.gguf") == gguf.sha256(path)


@pytest.mark.parametrize("name", ["gpt-2", "falcon", "phi-3", "llama-spm", "deepseek-coder"])
def test_real_vocabularies(name: str, shared_data: Callable[[str], Path]) -> None:
    with gguf.open(shared_data(f"tokenizers/ggml-vocab-{name}.gguf")) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, gguf.StringArray)
        assert len(tokens) > 30_000
        assert len(list(tokens)) == len(tokens)


def test_types_newer_than_the_package_still_have_formats() -> None:
    with pytest.raises(UnsupportedError):
        formats.by_type(200)
    assert {format.ggml_type for format in formats.all().values()} >= {f.ggml_type for f in FORMATS}
