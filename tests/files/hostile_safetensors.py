"""Every malformed safetensors file that must be rejected, by what is wrong with it."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A file to reject: made when asked for, and a pattern of the message."""

    build: Callable[[], bytes]
    message: str
    size: int = 0


def pack(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of that header and data; `length` is what is written for the header's length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype: str, shape: list[object], begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


VALID = {
    "__metadata__": {"format": "pt"},
    "a": entry("F32", [2, 3], 0, 24),
    "b": entry("BF16", [4], 24, 32),
    "c": entry("I64", [1], 32, 40),
}
DATA = bytes(range(40))


def changed(message: str, data: bytes = DATA, **entries: object) -> Case:
    """The valid file with some entries replaced or added."""
    return Case(lambda: pack(json.dumps(VALID | entries).encode(), data), message)


def header(message: str, raw: bytes | str, data: bytes = b"", length: int | None = None) -> Case:
    raw = raw.encode() if isinstance(raw, str) else raw
    return Case(lambda: pack(raw, data, length), message)


_ENTRY = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'


def many_entries() -> bytes:
    """1.6 million proper entries of nothing: all that fits below the header's limit."""
    pair = b'"%08d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return pack(b"{" + b",".join(pair % n for n in range(1_600_000)) + b"}")


ALL = {
    "empty": Case(lambda: b"", "an empty file"),
    "seven bytes": Case(lambda: bytes(7), "offset 0: expected 8 bytes .* 7 bytes"),
    "header of 0": header("offset 0: .* got 0", b"", length=0),
    "header of 1": header("offset 0: .* got 1", b"{", length=1),
    "header over 100 MB": Case(
        lambda: pack(b"{}", length=100_000_001), "2 to 100000000, got 100000001", 1 << 28
    ),
    "header over the file": header("2 to 2, got 3", b"{}", length=3),
    "header of 2^64 - 1": header("got 18446744073709551615", b"{}", length=2**64 - 1),
    "not an object": header("begin with '{', got byte 0x5b", b"[]"),
    "space before the object": header("got byte 0x20", b" {}"),
    "never closed": header("offset", b'{"a"'),
    "nothing after the brace": header("expected", b"{ "),
    "two objects": header("the end of the JSON", b"{}{}"),
    "trailing comma": header("expected", "{" + f'"a":{{{_ENTRY}}},' + "}", bytes(4)),
    "no colon": header("expected ':'", '{"a" 1}'),
    "bad UTF-8": header("expected UTF-8, got byte 0xff", b'{"a\xff":{}}'),
    "bad UTF-8 in metadata": header("UTF-8", b'{"__metadata__":{"a":"\xc3"}}'),
    "UTF-16": header("offset 8|expected", '{"a":1}'.encode("utf-16-le")),
    "half of a surrogate pair": header("whole characters", '{"\\ud800":{}}'),
    "control character": header("no bare control", b'{"a\n":{}}'),
    "bad escape": header("an escape of JSON", '{"a\\x":{}}'),
    "duplicate tensor": header(
        "each of them once", f'{{"a":{{{_ENTRY}}},"a":{{{_ENTRY}}}}}', bytes(4)
    ),
    "duplicate under an escape": header(
        "each of them once", f'{{"a":{{{_ENTRY}}},"\\u0061":{{{_ENTRY}}}}}', bytes(4)
    ),
    "duplicate key in an entry": header("once", f'{{"a":{{"dtype":"F32",{_ENTRY}}}}}', bytes(4)),
    "duplicate metadata": header("once", '{"__metadata__":{},"__metadata__":{}}'),
    "100,000 deep": header("expected", b'{"a":' * 100_000),
    "100,000 deep in a shape": header(
        "a whole number", b'{"a":{"dtype":"F32","shape":' + b"[" * 100_000
    ),
    "10^7 entries": Case(
        lambda: pack(b"{" + b'"a":{},' * 9_999_999 + b'"a":{}}'), "dtype, shape and two"
    ),
    "1.6 million entries": Case(many_entries, "expected at most 32769 keys"),
    "10^7 numbers in a shape": Case(
        lambda: pack(b'{"a":{"shape":[' + b"1," * 9_999_999 + b"1]}}"), "at most 8 numbers"
    ),
    "2 million keys of metadata": Case(
        lambda: pack(
            b'{"__metadata__":{' + b",".join(b'"%d":""' % n for n in range(2_000_000)) + b"}}"
        ),
        "at most 4096 keys",
    ),
    "90 MB of metadata": Case(
        lambda: pack(b'{"__metadata__":{"a":"' + b"x" * 90_000_000 + b'"}}'),
        "ends within 1048576 bytes",
    ),
    "90 MB of metadata in pieces": Case(
        lambda: pack(
            b'{"__metadata__":{' + b",".join(b'"%d":"%s"' % (n, b"x" * 10**6) for n in range(90))
            + b"}}"
        ),
        "8388608 bytes of metadata",
    ),
    "90 MB of spaces": Case(lambda: pack(b"{" + b" " * 90_000_000), "expected"),
    "name of 1 MB": Case(lambda: pack(b'{"' + b"x" * 10**6 + b'":{}}'), "within 1024 bytes"),
    "name of escapes only": Case(lambda: pack(b'{"' + b"\\n" * 10**6), "within 1024 bytes"),
    "unknown type": changed("tensor 'a': .* got 'F33'", a=entry("F33", [2, 3], 0, 24)),
    "type a number": header("expected '\"'", '{"a":{"dtype":1}}'),
    "type missing": header("dtype, shape and two", '{"a":{"shape":[],"data_offsets":[0,4]}}'),
    "shape missing": header("dtype, shape and two", '{"a":{"dtype":"F32","data_offsets":[0,4]}}'),
    "offsets missing": header("dtype, shape and two", '{"a":{"dtype":"F32","shape":[]}}'),
    "one offset": header("two", '{"a":{"dtype":"F32","shape":[],"data_offsets":[0]}}'),
    "three offsets": header("at most 2", '{"a":{"dtype":"F32","data_offsets":[0,4,8]}}'),
    "another key": header("only", '{"a":{"dtype":"F32","strides":[1]}}'),
    "entry not an object": header("expected '{'", '{"a":[]}'),
    "negative shape": changed("'a', shape .* whole number", a=entry("F32", [-2, -3], 0, 24)),
    "float shape": changed("'a', shape .* whole number", a=entry("F32", [2.0, 3], 0, 24)),
    "exponent shape": header("whole number", '{"a":{"shape":[1e1]}}'),
    "shape with a leading zero": header("whole number", '{"a":{"shape":[01]}}'),
    "shape of a string": changed("whole number", a=entry("F32", ["2", 3], 0, 24)),
    "shape of a bool": changed("whole number", a=entry("F32", [True], 0, 4)),
    "shape of null": changed("whole number", a=entry("F32", [None], 0, 4)),
    "shape of 2^64": changed("whole number", a=entry("F32", [2**64], 0, 24)),
    "shape of 10^1000": header("whole number", '{"a":{"shape":[1' + "0" * 1000 + "]}}"),
    "shape that wraps around": changed(
        "tensor 'a': expected .* bytes for F32",
        a=entry("F32", [4194305, 4194305, 211106198978564], 0, 24),
    ),
    "begin after end": changed(
        r"'a': expected offsets in order, got \[24, 0\]", a=entry("F32", [2, 3], 24, 0)
    ),
    "offset of 2^64": changed("whole number", a=entry("F32", [2, 3], 0, 2**64)),
    "negative offset": changed("whole number", a=entry("F32", [2, 3], -24, 0)),
    "offset beyond the file": changed("'c': expected its data", c=entry("I64", [1], 4096, 4104)),
    "more than shape and type make": changed("expected 24 bytes", a=entry("F32", [2, 3], 0, 28)),
    "less than shape and type make": changed("expected 12 bytes", a=entry("F16", [2, 3], 0, 24)),
    "overlap": changed(r"'b': .* got 20 \(an overlap\)", b=entry("BF16", [4], 20, 28)),
    "hole": changed(r"'b': .* got 26 \(a hole\)", DATA + b"..", b=entry("BF16", [4], 26, 34)),
    "the same place twice": changed(r"an overlap", d=entry("BF16", [4], 24, 32)),
    "does not begin at 0": header(
        "a hole", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)
    ),
    "one byte short": changed("data: expected 40 bytes .* got 39", DATA[:-1]),
    "trailing byte": changed("data: expected 40 bytes .* got 41", DATA + b"."),
    "data without tensors": header("expected 0 bytes of data", "{}", b"."),
    "metadata a string": changed("expected '{'", __metadata__="pt"),
    "metadata of a number": changed("__metadata__ 'n' at offset", __metadata__={"n": 1}),
    "metadata nested": changed("__metadata__ 'n' at offset", __metadata__={"n": {"a": "b"}}),
    "metadata of null": changed("__metadata__ 'n' at offset", __metadata__={"n": None}),
}  # fmt: skip
