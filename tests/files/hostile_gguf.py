"""Every malformed GGUF that must be rejected, by what is wrong with it.

A case is a recipe for bytes (or bytes and the size of a sparse file) and a pattern of the message:
where the fault is, what was expected, what was found.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from gguf_bytes import (
    ARCHITECTURE,
    ARRAY,
    BOOL,
    DATA_BYTES,
    F32,
    HEADER_BYTES,
    KEYS,
    RECORDS,
    STRING,
    TYPE_F32,
    TYPE_Q4_K,
    TYPE_Q8_0,
    U8,
    U32,
    U64,
    Recipe,
    array,
    key,
    record,
    strings,
    text,
    u32,
    u64,
)

VALID = Recipe()


@dataclass(frozen=True)
class Case:
    """A file to reject: made when asked for, since some are large."""

    build: Callable[[], bytes]
    message: str
    size: int = 0


def recipe(message: str, **changes: object) -> Case:
    """The valid model with some parts changed."""
    return Case(replace(VALID, **changes).build, message)  # type: ignore[arg-type]


def value(message: str, name: str | bytes, value_type: int, payload: bytes) -> Case:
    """The valid model with one more key, the last."""
    return recipe(message, values=(*KEYS, key(name, value_type, payload)))


def tensors(message: str, *records: bytes, data: bytes = bytes(DATA_BYTES)) -> Case:
    """The valid keys before other tensors."""
    return recipe(message, records=records, data=data)


def byte_swapped() -> bytes:
    """A big-endian file: the magic as it is, every number the other way round."""
    name, architecture = b"general.architecture", b"llama"
    numbers = struct.pack(">IQQ", 3, 0, 1)
    pair = struct.pack(">Q", len(name)) + name + struct.pack(">I", STRING)
    return b"GGUF" + numbers + pair + struct.pack(">Q", len(architecture)) + architecture


def version_1() -> bytes:
    """The oldest layout: counts and lengths in 32 bits."""
    pair = u32(4) + b"name" + u32(U32) + u32(7)
    return b"GGUF" + u32(1) + u32(0) + u32(1) + pair


HEADER = {
    "empty": Case(lambda: b"", "expected a model, got an empty file"),
    "wrong magic": recipe("offset 0: expected the magic b'GGUF', got b'GGML'", magic=b"GGML"),
    "reversed magic": recipe("got b'FUGG'", magic=b"FUGG"),
    "one byte": Case(lambda: b"G", "got b'G'"),
    "zeroed": Case(lambda: bytes(4096), "expected the magic"),
    "zeroed after the magic": Case(lambda: b"GGUF" + bytes(4096), "expected version 2 or 3, got 0"),
    "version 0": recipe("expected version 2 or 3, got 0", version=0),
    "version 1": Case(version_1, "expected version 2 or 3, got 1"),
    "version 4": recipe("expected version 2 or 3, got 4", version=4),
    "byte-swapped": Case(byte_swapped, "byte-swapped"),
    "2^63 tensors": recipe(f"number of tensors at offset 8: .* got {1 << 63}", tensors=1 << 63),
    "2^64 - 1 keys": recipe(f"number of keys at offset 16: .* got {2**64 - 1}", keys=2**64 - 1),
    "more tensors than fit": recipe("number of tensors at offset 8: expected at most", tensors=60),
    "more keys than fit": recipe("number of keys at offset 16: expected at most", keys=90),
    "a tensor too many": recipe("expected", tensors=4),
    "a key too many": recipe("expected", keys=5),
    "2^38 tensors in a sparse file": Case(
        replace(VALID, tensors=1 << 38).build, "number of tensors at offset 8", 1 << 43
    ),
}

_BIG = 1 << 62
_FLAT = key("x", ARRAY, array(U32, 1, u32(0)))
KEY_CASES = {
    "key length 2^64 - 1": recipe("got 18446744073709551615", values=(*KEYS, u64(2**64 - 1))),
    "key beyond the rest": recipe("key 4 at offset .* got 5000", values=(*KEYS, u64(5000))),
    "key of no bytes": value("got an empty string", "", U32, u32(0)),
    "key of 65,536 bytes": value("at most 65535 bytes, got 65536", "k" * 65_536, U32, u32(0)),
    "key not UTF-8": value("key 4: expected UTF-8, got byte 0xff", b"a\xff", U32, u32(0)),
    "key of a cut character": value("key 4: expected UTF-8", b"a\xc3", U32, u32(0)),
    "key with NUL": value("key 4 at offset .* no NUL", b"a\0b", U32, u32(0)),
    "duplicate key": recipe("'general.arch.* once", values=(*KEYS, ARCHITECTURE)),
    "value type 13": value("key 'x' at offset .* 0 to 12, got 13", "x", 13, u32(0)),
    "value type 2^32 - 1": value("got 4294967295", "x", 2**32 - 1, u32(0)),
    "string of 2^40": value("key 'x' at .* got 1099511627776", "x", STRING, u64(1 << 40)),
    "string of 2^40, sparse": Case(
        replace(VALID, values=(key("x", STRING, u64(1 << 40)),), tensors=0, records=()).build,
        "key 'x' at .* got 1099511627776",
        1 << 42,
    ),
    "string not UTF-8": value("key 'x': expected UTF-8, got byte 0x80", "x", STRING, text(b"\x80")),
    "surrogate in a string": value("expected UTF-8", "x", STRING, text(b"\xed\xa0\x80")),
    "overlong NUL": value("expected UTF-8", "x", STRING, text(b"\xc0\x80")),
    "array of 2^62": value(f"got {_BIG}", "x", ARRAY, array(U32, _BIG, b"")),
    "array of 2^62 strings": value(f"got {_BIG}", "x", ARRAY, array(STRING, _BIG, b"")),
    "array of 2^64 - 1 bytes": value("got 18446", "x", ARRAY, array(U8, 2**64 - 1, b"")),
    "array past the end": value("at most .* items, got 400", "x", ARRAY, array(U64, 400, b"")),
    "arrays 2,000 deep": value(
        "an array of arrays", "x", ARRAY, array(ARRAY, 1, b"") * 2000 + array(U8, 1, b"\0")
    ),
    "element type 255": value("0 to 12, got 255", "x", ARRAY, array(255, 1, u32(0))),
    "2^30 empty strings": value("items, got 1073741824", "x", ARRAY, array(STRING, 1 << 30, b"")),
    "2^30 empty strings, sparse": Case(
        lambda: b"GGUF" + u32(3) + u64(0) + u64(1) + key("x", ARRAY, array(STRING, 1 << 30, b"")),
        "items, got 1073741824",
        1 << 34,
    ),
    "2^21 empty strings and a fault": Case(
        lambda: b"GGUF" + u32(3) + u64(0) + u64(2) + key("x", ARRAY, array(STRING, 1 << 21, b"")),
        "key 1 at offset .* empty string",
        1 << 26,
    ),
    "arrays of strings without end": recipe(
        "key 'general.b' at .* at most 0 items",
        values=(
            key("general.a", ARRAY, array(STRING, 1 << 21, bytes(1 << 24))),
            key("general.b", ARRAY, array(STRING, 1, u64(0))),
        ),
    ),
    "string in an array beyond the rest": value(
        "key 'x', string 1 at offset .* got 100000",
        "x",
        ARRAY,
        array(STRING, 2, text("a") + u64(100_000)),
    ),
    "string in an array of 2^64 - 1": value(
        "key 'x', string 2 at offset", "x", ARRAY, array(STRING, 3, text("a") * 2 + u64(2**64 - 1))
    ),
    "string in an array not UTF-8": value(
        "key 'x', string 300: expected UTF-8, got byte 0xfe",
        "x",
        ARRAY,
        array(STRING, 400, text("é") * 300 + text(b"a\xfe") + text("a" * 200) * 99),
    ),
    "character over two strings": value(
        "key 'x', string 0: expected UTF-8",
        "x",
        ARRAY,
        array(STRING, 2, text(b"\xc3") + text(b"\xa9")),
    ),
    "120 MB of text, then a fault": Case(
        lambda: b"".join(
            (
                b"GGUF" + u32(3) + u64(0) + u64(2),
                key("x", ARRAY, array(STRING, 120, text("é" * 500_000) * 120)),
                key("y", 99, b""),
            )
        ),
        "key 'y' at offset .* got 99",
    ),
    "header over 128 MiB": Case(
        lambda: b"GGUF" + u32(3) + u64(0) + u64(1) + key("x", ARRAY, array(U8, 1 << 28, b"")),
        "items, got 268435456",
        1 << 30,
    ),
    "bool 2": value("key 'x' at offset .* 0 or 1, got 2", "x", BOOL, b"\2"),
    "bool 255 in an array": value("got 255", "x", ARRAY, array(BOOL, 3, b"\0\1\xff")),
    "alignment 0": value("power of two .* got 0", "general.alignment", U32, u32(0)),
    "alignment 24": value("power of two .* got 24", "general.alignment", U32, u32(24)),
    "alignment 2^31": value("power of two .* got 2147483648", "general.alignment", U32, u32(2**31)),
    "alignment 4": value("from 8 to 65536, got 4", "general.alignment", U32, u32(4)),
    "alignment a string": value("UINT32, got STRING", "general.alignment", STRING, text("32")),
    "alignment a UINT64": value("UINT32, got UINT64", "general.alignment", U64, u64(32)),
    "alignment an array": value("an array of", "general.alignment", ARRAY, array(U32, 1, u32(32))),
    "architecture missing": recipe("'general.architecture': .* no such key", values=(_FLAT,)),
    "architecture a number": recipe(
        "'general.architecture': .* got 7", values=(key("general.architecture", U32, u32(7)),)
    ),
    "architecture an array": recipe(
        "'general.architecture': .* got StringArray",
        values=(key("general.architecture", ARRAY, strings(["llama"])),),
    ),
    "architecture empty": recipe(
        "'general.architecture'", values=(key("general.architecture", STRING, text("")),)
    ),
}

_NORM, _DOWN, _UP = RECORDS
TENSOR_CASES = {
    "name of 64 bytes": tensors("at most 63 bytes, got 64", record("n" * 64, [8], 0, 0)),
    "name of no bytes": tensors("got an empty string", record("", [8], 0, 0)),
    "name not UTF-8": tensors("name of tensor 0: expected UTF-8", record(b"\xff", [8], 0, 0)),
    "name with NUL": tensors("no NUL", record(b"a\0", [8], 0, 0)),
    "name of 2^63": recipe("got 9223372036854775808", tensors=1, records=(u64(1 << 63) * 8,)),
    "duplicate": tensors("tensor 'a' at .* once", record("a", [8], 0, 0), record("a", [8], 0, 32)),
    "no dimensions": tensors("tensor 'a' at .* got 0", record("a", [], 0, 0) + bytes(8)),
    "five dimensions": tensors("1 to 4 dimensions, got 5", record("a", [1] * 5, 0, 0)),
    "2^32 - 1 dimensions": tensors(
        "1 to 4 dimensions, got 4294967295", text("a") + u32(2**32 - 1) + bytes(64)
    ),
    "a dimension of 0": tensors("'a': expected dimensions", record("a", [8, 0], 0, 0)),
    "a negative dimension": tensors("'a': expected dimensions", record("a", [8, -1], 0, 0)),
    "overflow of elements": tensors("at most the", record("a", [1 << 32, 1 << 33], 0, 0)),
    "elements that wrap to 8": tensors("at most the", record("a", [8, 2**61 + 1, 8], 0, 0)),
    "overflow of bytes": tensors("at most the", record("a", [1 << 62], 0, 0)),
    "overflow of padding": tensors("at most the", record("a", [2**61 - 1], 0, 0)),
    "overflow of the total": tensors(
        "to byte", record("a", [120], 0, 0), record("b", [120], 0, 480)
    ),
    "type -1": tensors("'a': .* got 4294967295", record("a", [32], -1, 0)),
    "removed type 4": tensors("'a': .* got 4, which is removed", record("a", [32], 4, 0)),
    "removed type 36": tensors("got 36", record("a", [32], 36, 0)),
    "unknown type 200": tensors("got 200", record("a", [32], 200, 0)),
    "row not of whole blocks": tensors(
        "multiple of 32 weights for q8_0, got 48", record("a", [48, 2], TYPE_Q8_0, 0)
    ),
    "row not of whole K blocks": tensors(
        "multiple of 256 weights for q4_k, got 128", record("a", [128, 2], TYPE_Q4_K, 0)
    ),
    "misaligned offset": tensors(
        r"offset 64, got 40 \(not a multiple of the alignment 32\)",
        _NORM,
        record("b", [64, 4], TYPE_Q8_0, 40),
    ),
    "first offset not 0": tensors("offset 0, got 32", record("a", [8], TYPE_F32, 32)),
    "offset beyond the file": tensors(
        "offset 64, got 1048576", _NORM, record("b", [8], 0, 1 << 20)
    ),
    "offset + size wraps": tensors("offset 64, got 18446", _NORM, record("b", [8], 0, 2**64 - 32)),
    "overlap": tensors(r"got 32 \(an overlap\)", _NORM, record("b", [8], TYPE_F32, 32)),
    "hole": tensors(r"got 96 \(a hole\)", _NORM, record("b", [8], TYPE_F32, 96)),
    "swapped order": recipe("expected its data at offset 0", records=(_DOWN, _NORM, _UP)),
    "one byte short": recipe("'up.weight': expected data to byte", data=bytes(352 + 144 - 1)),
    "no data": recipe("expected", data=b""),
    "one byte of junk": recipe("bytes more", data=bytes(DATA_BYTES + 1)),
    "a block of junk": recipe("got 4096 bytes more", data=bytes(DATA_BYTES + 4096)),
    "junk after no tensors": recipe("bytes more", records=(), data=bytes(32)),
    "2^15 + 1 tensors": Case(
        replace(VALID, records=(record("a", [8], TYPE_F32, 0),) * 32_769).build,
        "number of tensors at offset 8: expected at most 32768",
    ),
    "32,000 tensors, the last a duplicate": Case(
        lambda: replace(
            VALID,
            records=(*(record(f"{n}", [1], 0, 32 * n) for n in range(32_000)), _NORM, _NORM),
            data=b"",
        ).build(),
        "'norm.weight' at offset .* once",
    ),
}

ALL = {
    **{f"header: {name}": case for name, case in HEADER.items()},
    **{f"keys: {name}": case for name, case in KEY_CASES.items()},
    **{f"tensors: {name}": case for name, case in TENSOR_CASES.items()},
}

__all__ = ["ALL", "F32", "HEADER_BYTES", "VALID", "Case"]
