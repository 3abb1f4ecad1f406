"""Safetensors files and Hugging Face's folders of them, opened lazily and checked; read only.

    with safetensors.open("folder") as checkpoint:
        checkpoint["model.norm.weight"].decode()

A file is the length of a header in eight bytes, the header as JSON, and the data. The header is
read by a parser of our own, see `_json.py`. F32, F16 and BF16 become tensors; other types stand in
`stored`, since checkpoints carry integer buffers that nobody needs: only asking for one as a tensor
is an error.
Spec: the README of github.com/huggingface/safetensors.
"""

import os
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError, UnsupportedError
from trit.files._json import Reader
from trit.files._mapping import Mapping
from trit.files._tensor import Tensor
from trit.files._weight_map import read_weight_map
from trit.formats import get

__all__ = ["SafeTensors", "Stored", "Tensor", "open"]

_FORMATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip
_NUMPY = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U16": "<u2", "U32": "<u4"}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_STRING_BYTES = 1 << 20
_MAX_NAME_BYTES = 1 << 10
_MAX_DIMENSIONS = 8

# Ceilings of our own: no model comes near them, and what stays below is read within a second.
_MAX_TENSORS = 1 << 15
_MAX_METADATA = 1 << 12
_MAX_METADATA_BYTES = 1 << 23

_METADATA = "__metadata__"
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors", re.DOTALL)


@dataclass(frozen=True)
class _Entry:
    """A tensor as the header gives it; offsets from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Stored:
    """A tensor of a type that is no float: codes, indices, numbers of 8 bits.

    dtype  the format's name for its type
    data   its bytes, uint8, a view of the file
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def numbers(self) -> NDArray[np.integer]:
        """The numbers, a view of `shape`; of F8_E4M3 and others that numpy has not, the bytes."""
        assert self.dtype in _NUMPY or _BITS[self.dtype] == 8, self.dtype
        if self.dtype in _NUMPY:
            return self.data.view(_NUMPY[self.dtype]).reshape(self.shape)
        return self.data.reshape(self.shape)


class SafeTensors:
    """An open checkpoint of one file or several.

    path         the file or folder that was asked for; `paths` are all its files
    metadata     the files' `__metadata__`, strings to strings; of equal keys the first file's wins
    tensors      name -> Tensor, for F32, F16 and BF16
    stored       name -> Stored, for all other types
    """

    def __init__(self, path: Path, mappings: list[Mapping], weight_map: dict[str, str]) -> None:
        """`weight_map`, where there is an index, says in which file each tensor must be."""
        self.path = path
        self.paths = [mapping.path for mapping in mappings]
        self.metadata: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.stored: dict[str, Stored] = {}
        self._mappings = mappings
        for mapping in mappings:
            for name in self._add(mapping):
                if weight_map and weight_map.get(name) != mapping.path.name:
                    expected = weight_map.get(name)
                    problem = f"expected in {expected}" if expected else "expected in the index"
                    problem += ", got it here"
                    raise InvalidFileError(mapping.path, f"tensor {name!r}", problem)
        for name, file in weight_map.items():
            if name not in self.tensors and name not in self.stored:
                problem = f"expected tensor {name!r}, as the index says, got no such tensor"
                raise InvalidFileError(path / file, "", problem)

    def _add(self, mapping: Mapping) -> list[str]:
        """Take up a file's tensors and metadata; the names of its tensors."""
        entries, metadata, data_start = _read_header(mapping)
        self.metadata = metadata | self.metadata
        raw = mapping.bytes
        for entry in entries:
            if entry.name in self.tensors or entry.name in self.stored:
                problem = "expected in one file, got it again"
                raise InvalidFileError(mapping.path, f"tensor {entry.name!r}", problem)
            data = raw[data_start + entry.begin : data_start + entry.end]
            if entry.dtype not in _FORMATS:
                self.stored[entry.name] = Stored(entry.name, entry.dtype, entry.shape, data)
                continue
            format = get(_FORMATS[entry.dtype])
            shape = entry.shape or (1,)  # a single number is a row of one
            data = data.reshape(*shape[:-1], shape[-1] * format.block_bytes)
            self.tensors[entry.name] = Tensor(entry.name, shape, format, data)
        return [entry.name for entry in entries]

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name; UnsupportedError for its type, InvalidFileError if missing."""
        if name in self.tensors:
            return self.tensors[name]
        if name in self.stored:
            raise UnsupportedError(
                f"{self.path}: tensor {name!r} is of type {self.stored[name].dtype}; "
                f"trit reads {', '.join(_FORMATS)}.\n"
                "Take a checkpoint in one of these types."
            )
        problem = f"expected among the {len(self.tensors)} tensors of the checkpoint, got none"
        raise InvalidFileError(self.path, f"tensor {name!r}", problem)

    def close(self) -> None:
        """Let go of the files. Arrays already taken from them stay good."""
        self.tensors, self.stored = {}, {}
        for mapping in self._mappings:
            mapping.close()

    def __enter__(self) -> "SafeTensors":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open(path: str | os.PathLike[str]) -> SafeTensors:
    """Open a safetensors file, or a folder with `model.safetensors` or an index of shards.

    InvalidFileError (file, offset or tensor, expected, got) for what breaks a rule of the format,
    for a missing shard, and for a folder without weights.
    """
    path = Path(path)
    files, weight_map = _files(path)
    mappings: list[Mapping] = []
    try:
        for file in files:
            mappings.append(Mapping(file))
        return SafeTensors(path, mappings, weight_map)
    except BaseException:
        for mapping in mappings:
            mapping.close()
        raise


def _files(path: Path) -> tuple[list[Path], dict[str, str]]:
    """The weight files of a checkpoint, and which tensor is in which if an index says so."""
    if not path.is_dir():
        return [path], {}
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single], {}
    if index.is_file():
        weight_map = read_weight_map(index)
        return [path / name for name in sorted(set(weight_map.values()))], weight_map
    found = sorted(path.glob("*.safetensors"))
    if not found:
        problem = "expected *.safetensors files in the folder, got none"
        raise InvalidFileError(path, "", problem)
    _check_shards(path, {file.name for file in found})
    return found, {}


def _check_shards(folder: Path, names: set[str]) -> None:
    """Without an index the names say how many files there are: NAME-00001-of-00003.safetensors."""
    matches = [match for name in names if (match := _SHARD.fullmatch(name))]
    for stem, count in sorted({(match["stem"], match["count"]) for match in matches}):
        for number in range(1, int(count) + 1):
            name = f"{stem}-{number:05}-of-{count}.safetensors"
            if name not in names:
                problem = f"expected all {int(count)} files of the weights, got none of that name"
                raise InvalidFileError(folder / name, "", problem)


def _read_header(mapping: Mapping) -> tuple[list[_Entry], dict[str, str], int]:
    """Entries that tile the data exactly, metadata, and where in the file the data begins."""
    path, view = mapping.path, memoryview(mapping.buffer)
    if mapping.size < 8:
        problem = f"expected 8 bytes of header length, got a file of {mapping.size} bytes"
        raise InvalidFileError(path, "offset 0", problem)
    (length,) = struct.unpack_from("<Q", view, 0)
    most = min(_MAX_HEADER_BYTES, mapping.size - 8)
    if not 2 <= length <= most:
        problem = f"expected a header length of 2 to {most}, got {length}"
        raise InvalidFileError(path, "offset 0", problem)
    if view[8] != ord("{"):
        problem = f"expected the header to begin with '{{', got byte 0x{view[8]:02x}"
        raise InvalidFileError(path, "offset 8", problem)
    reader = Reader(path, view, 8, 8 + length)
    entries: list[_Entry] = []
    metadata: dict[str, str] = {}
    for name in reader.keys("header", _MAX_NAME_BYTES, _MAX_TENSORS + 1):
        if name == _METADATA:
            metadata = _read_metadata(reader)
            continue
        entries.append(_read_entry(reader, name))
    reader.finish()
    _check_tiling(path, entries, mapping.size - 8 - length)
    return entries, metadata, 8 + length


def _read_metadata(reader: Reader) -> dict[str, str]:
    metadata: dict[str, str] = {}
    start = reader.at
    for key in reader.keys(_METADATA, _MAX_NAME_BYTES, _MAX_METADATA):
        metadata[key] = reader.string(f"{_METADATA} {key[:80]!r}", _MAX_STRING_BYTES)
        if reader.at - start > _MAX_METADATA_BYTES:
            raise reader.fail(f"at most {_MAX_METADATA_BYTES} bytes of metadata", _METADATA)
    return metadata


def _read_entry(reader: Reader, name: str) -> _Entry:
    where = f"tensor {name[:80]!r}"
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    offsets: tuple[int, ...] | None = None
    for key in reader.keys(where, _MAX_NAME_BYTES, 3):
        if key == "dtype":
            dtype = reader.string(where, _MAX_NAME_BYTES)
        elif key == "shape":
            shape = reader.integers(f"{where}, shape", _MAX_DIMENSIONS)
        elif key == "data_offsets":
            offsets = reader.integers(f"{where}, data_offsets", 2)
        else:
            raise reader.fail("dtype, shape and data_offsets only", f"{where}, {key[:80]!r}")
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise reader.fail("dtype, shape and two data_offsets before this", where)
    return _checked(reader.path, _Entry(name, dtype, shape, *offsets))


def _checked(path: object, entry: _Entry) -> _Entry:
    """The entry, once its type is known and its size is what type and shape make."""
    where = f"tensor {entry.name[:80]!r}"
    if entry.dtype not in _BITS:
        problem = f"expected a type of {', '.join(_BITS)}, got {entry.dtype[:80]!r}"
        raise InvalidFileError(path, where, problem)
    if entry.begin > entry.end:
        problem = f"expected offsets in order, got [{entry.begin}, {entry.end}]"
        raise InvalidFileError(path, where, problem)
    bits = prod(entry.shape) * _BITS[entry.dtype]
    if bits != 8 * (entry.end - entry.begin):
        problem = (
            f"expected {-(-bits // 8)} bytes for {entry.dtype} {list(entry.shape)}, "
            f"got {entry.end - entry.begin}"
        )
        raise InvalidFileError(path, where, problem)
    return entry


def _check_tiling(path: object, entries: list[_Entry], data_bytes: int) -> None:
    """The tensors fill the data from its first to its last byte, none on top of another."""
    end = 0
    for entry in sorted(entries, key=lambda each: (each.begin, each.end)):
        if entry.begin != end:
            fault = "a hole" if entry.begin > end else "an overlap"
            problem = f"expected its data at offset {end}, got {entry.begin} ({fault})"
            raise InvalidFileError(path, f"tensor {entry.name[:80]!r}", problem)
        end = entry.end
    if end != data_bytes:
        problem = f"expected {end} bytes of data, as the header says, got {data_bytes}"
        raise InvalidFileError(path, "data", problem)
