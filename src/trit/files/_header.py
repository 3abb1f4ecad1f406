"""Parse and check the header of a GGUF file: magic, counts, keys and values, tensor infos.

Nothing of the file is believed. Every count is compared with what the rest of the file can hold
before anything is allocated for it, and with a ceiling no model comes near, so that a hostile file
costs neither time nor memory. Where llama.cpp and the specification differ, the stricter one is
followed. Spec: ggml, docs/gguf.md.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trit.errors import InvalidFileError
from trit.files._mapping import Mapping
from trit.files._strings import check_utf8, scan_strings
from trit.files._values import DTYPES, Plain, Value, ValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 2 is laid out as 3 is; 1 counts in 32 bits, and nobody writes it any more
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 63  # llama.cpp keeps names in 64 bytes with a NUL
MAX_DIMENSIONS = 4

# Ceilings of our own, an order of magnitude above any published model.
MAX_HEADER_BYTES = 1 << 27
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 15
MAX_STRING_BYTES = 1 << 24
MAX_STRINGS = 1 << 21  # in all arrays together

_LAST_TYPE = max(ValueType)
_MIN_KEY_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the header gives it, before anything is made of its numbers."""

    name: str
    dims: tuple[int, ...]  # fastest dimension first, as in the file
    ggml_type: int
    offset: int  # from the start of the data
    at: int  # where in the file the record begins


@dataclass(frozen=True)
class Header:
    """What stands before the data."""

    values: dict[str, Value]
    records: list[TensorRecord]
    alignment: int
    end: int  # first byte after the header, before padding


class Cursor:
    """Reads numbers and strings one after the other, each checked against the end of the file."""

    def __init__(self, mapping: Mapping) -> None:
        self.path: Path = mapping.path
        self.view = memoryview(mapping.buffer)
        self.size = mapping.size
        self.end = min(mapping.size, MAX_HEADER_BYTES)
        self.at = 0
        self.strings_left = MAX_STRINGS

    def fail(self, where: str, problem: str) -> InvalidFileError:
        return InvalidFileError(self.path, where, problem)

    def need(self, count: int, where: str) -> int:
        """Step over `count` bytes and return where they began."""
        at, rest = self.at, self.end - self.at
        if count > rest:
            limit = "bytes of the file" if self.end == self.size else "bytes allowed to a header"
            raise self.fail(
                f"{where} at offset {at}", f"expected {count} bytes, got the last {rest} {limit}"
            )
        self.at += count
        return at

    def u32(self, where: str) -> int:
        number: int = struct.unpack_from("<I", self.view, self.need(4, where))[0]
        return number

    def u64(self, where: str) -> int:
        number: int = struct.unpack_from("<Q", self.view, self.need(8, where))[0]
        return number

    def string(self, where: str, longest: int) -> str:
        """A length and its text; its length between 0 and `longest` bytes, its text UTF-8."""
        at = self.at
        length = self.u64(where)
        if length > min(longest, self.end - self.at):
            expected = f"a length of at most {min(longest, self.end - self.at)} bytes"
            raise self.fail(f"{where} at offset {at}", f"expected {expected}, got {length}")
        start = self.need(length, where)
        check_utf8(self.path, where, self.view, start, self.at)
        return str(self.view[start : self.at], "utf-8")

    def label(self, where: str, longest: int) -> str:
        """A string that names something: not empty, and without NUL."""
        at = self.at
        name = self.string(where, longest)
        if not name:
            raise self.fail(f"{where} at offset {at}", "expected a name, got an empty string")
        if "\0" in name:
            raise self.fail(f"{where} at offset {at}", f"expected no NUL, got {name[:80]!r}")
        return name


def parse(mapping: Mapping) -> Header:
    """The header of a mapped file; InvalidFileError for anything the format does not allow."""
    cursor = Cursor(mapping)
    _check_magic(cursor)
    tensors = cursor.u64("number of tensors")
    keys = cursor.u64("number of keys")
    _check_counts(cursor, tensors, keys)
    values: dict[str, Value] = {}
    for index in range(keys):
        at = cursor.at
        key = cursor.label(f"key {index}", MAX_KEY_BYTES)
        if key in values:
            raise cursor.fail(f"key {key[:80]!r} at offset {at}", "expected once, got it again")
        values[key] = _read_value(cursor, f"key {key[:80]!r}")
    alignment = _alignment(cursor, values)
    names: set[str] = set()
    records = []
    for index in range(tensors):
        record = _read_record(cursor, index)
        if record.name in names:
            where = f"tensor {record.name!r} at offset {record.at}"
            raise cursor.fail(where, "expected once, got it again")
        names.add(record.name)
        records.append(record)
    return Header(values, records, alignment, cursor.at)


def _check_magic(cursor: Cursor) -> None:
    magic = bytes(cursor.view[:4])
    if magic != MAGIC:
        raise cursor.fail("offset 0", f"expected the magic {MAGIC!r}, got {magic!r}")
    cursor.need(4, "magic")
    version = cursor.u32("version")
    if version in VERSIONS:
        return
    problem = f"expected version 2 or 3, got {version}"
    if version and version & 0xFFFF == 0:
        problem = "expected little-endian numbers, got a byte-swapped (big-endian) file"
    raise cursor.fail("version at offset 4", problem)


def _check_counts(cursor: Cursor, tensors: int, keys: int) -> None:
    rest = cursor.end - cursor.at
    for what, count, at, least, ceiling in (
        ("tensors", tensors, 8, _MIN_TENSOR_BYTES, MAX_TENSORS),
        ("keys", keys, 16, _MIN_KEY_BYTES, MAX_KEYS),
    ):
        if count > min(ceiling, rest // least):
            expected = f"at most {ceiling}, and what {rest} bytes can hold"
            raise cursor.fail(
                f"number of {what} at offset {at}", f"expected {expected}, got {count}"
            )
        rest -= count * least


def _read_type(cursor: Cursor, where: str) -> ValueType:
    number = cursor.u32(where)
    if number > _LAST_TYPE:
        problem = f"expected a type of 0 to {_LAST_TYPE}, got {number}"
        raise cursor.fail(f"{where} at offset {cursor.at - 4}", problem)
    return ValueType(number)


def _read_value(cursor: Cursor, where: str) -> Value:
    value_type = _read_type(cursor, where)
    if value_type is ValueType.ARRAY:
        return _read_array(cursor, where)
    if value_type is ValueType.STRING:
        return Value(value_type, cursor.string(where, MAX_STRING_BYTES))
    dtype = DTYPES[value_type]
    at = cursor.need(dtype.itemsize, where)
    _check_bools(cursor, value_type, at, where)
    scalar = np.frombuffer(cursor.view, dtype, 1, at)[0].item()
    assert isinstance(scalar, int | float | bool)
    return Value(value_type, scalar)


def _read_array(cursor: Cursor, where: str) -> Value:
    item_type = _read_type(cursor, f"{where}, type of items")
    count = cursor.u64(f"{where}, number of items")
    if item_type is ValueType.ARRAY:
        problem = "expected an array of plain values, got an array of arrays"
        raise cursor.fail(f"{where} at offset {cursor.at - 12}", problem)
    is_string = item_type is ValueType.STRING
    item_bytes = 8 if is_string else DTYPES[item_type].itemsize
    rest = (cursor.end - cursor.at) // item_bytes
    most = min(rest, cursor.strings_left) if is_string else rest
    if count > most:
        problem = f"expected an array of at most {most} items, got {count}"
        raise cursor.fail(f"{where} at offset {cursor.at - 8}", problem)
    if is_string:
        cursor.strings_left -= count
        strings = scan_strings(cursor.path, where, cursor.view, cursor.at, count, cursor.end)
        cursor.at = strings.end
        return Value(item_type, strings)
    at = cursor.need(count * item_bytes, where)
    _check_bools(cursor, item_type, at, where)
    return Value(item_type, np.frombuffer(cursor.view, DTYPES[item_type], count, at))


def _check_bools(cursor: Cursor, value_type: ValueType, at: int, where: str) -> None:
    if value_type is not ValueType.BOOL:
        return
    raw = np.frombuffer(cursor.view, np.uint8, cursor.at - at, at)
    if len(raw) and raw.max() > 1:
        index = int((raw > 1).argmax())
        problem = f"expected a bool of 0 or 1, got {raw[index]}"
        raise cursor.fail(f"{where} at offset {at + index}", problem)


def _alignment(cursor: Cursor, values: dict[str, Value]) -> int:
    value = values.get("general.alignment", Value(ValueType.UINT32, DEFAULT_ALIGNMENT))
    alignment = value.value
    where = "key 'general.alignment'"
    if value.type is not ValueType.UINT32 or not isinstance(alignment, int):
        got = f"an array of {value.type.name}" if value.is_array else value.type.name
        raise cursor.fail(where, f"expected a UINT32, got {got}")
    if alignment not in (1 << bit for bit in range(3, 17)):
        problem = f"expected a power of two from 8 to {MAX_ALIGNMENT}, got {alignment}"
        raise cursor.fail(where, problem)
    return alignment


def _read_record(cursor: Cursor, index: int) -> TensorRecord:
    at = cursor.at
    name = cursor.label(f"name of tensor {index}", MAX_NAME_BYTES)
    where = f"tensor {name!r}"
    dimensions = cursor.u32(f"{where}, number of dimensions")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        problem = f"expected 1 to {MAX_DIMENSIONS} dimensions, got {dimensions}"
        raise cursor.fail(f"{where} at offset {cursor.at - 4}", problem)
    dims = struct.unpack_from(
        f"<{dimensions}Q", cursor.view, cursor.need(8 * dimensions, f"{where}, dimensions")
    )
    ggml_type = cursor.u32(f"{where}, type")
    offset = cursor.u64(f"{where}, offset")
    return TensorRecord(name, dims, ggml_type, offset, at)


def plain(value: Value) -> Plain:
    """The value alone; arrays of numbers copied out of the file, so that they are aligned."""
    if isinstance(value.value, np.ndarray):
        return np.array(value.value)
    return value.value
