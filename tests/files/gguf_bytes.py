"""GGUF files put together byte by byte, right or wrong as asked. Knows nothing of trit's writer."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
TYPE_F32, TYPE_Q8_0, TYPE_Q4_K = 0, 8, 12
HEADER_BYTES = 24


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def text(raw: str | bytes) -> bytes:
    """A GGUF string."""
    raw = raw.encode() if isinstance(raw, str) else raw
    return u64(len(raw)) + raw


def key(name: str | bytes, value_type: int, payload: bytes) -> bytes:
    """A key with its value's type and bytes."""
    return text(name) + u32(value_type) + payload


def array(item_type: int, count: int, payload: bytes) -> bytes:
    """The payload of an array value."""
    return u32(item_type) + u64(count) + payload


def strings(items: list[str]) -> bytes:
    """The payload of an array of strings."""
    return array(STRING, len(items), b"".join(text(item) for item in items))


def record(name: str | bytes, dims: list[int], ggml_type: int, offset: int) -> bytes:
    """A tensor's entry in the header; dims fastest first."""
    numbers = b"".join(u64(dim % (1 << 64)) for dim in dims)
    return text(name) + u32(len(dims)) + numbers + u32(ggml_type % (1 << 32)) + u64(offset)


ARCHITECTURE = key("general.architecture", STRING, text("llama"))
TOKENS = key("tokenizer.ggml.tokens", ARRAY, strings(["<s>", "hello", "é", ""]))
FLAG = key("tokenizer.ggml.add_bos_token", BOOL, b"\1")
SCORES = key("tokenizer.ggml.scores", ARRAY, array(F32, 4, struct.pack("<4f", 0, -1, -2, -3)))
KEYS = (ARCHITECTURE, TOKENS, FLAG, SCORES)

# 40 + 272 + 144 bytes: the first leaves padding, so that holes and misalignment differ.
RECORDS = (
    record("norm.weight", [10], TYPE_F32, 0),
    record("down.weight", [64, 4], TYPE_Q8_0, 64),
    record("up.weight", [256, 1], TYPE_Q4_K, 352),
)
DATA_BYTES = 512


@dataclass(frozen=True)
class Recipe:
    """What a file is made of. The default is a small valid model of three tensors."""

    magic: bytes = b"GGUF"
    version: int = 3
    tensors: int | None = None  # counts as written; None: the true ones
    keys: int | None = None
    values: tuple[bytes, ...] = KEYS
    records: tuple[bytes, ...] = RECORDS
    alignment: int = 32
    data: bytes = field(default=bytes(range(256)) * (DATA_BYTES // 256))

    def header(self) -> bytes:
        """All before the padding and the data."""
        tensors = len(self.records) if self.tensors is None else self.tensors
        keys = len(self.values) if self.keys is None else self.keys
        counts = u64(tensors) + u64(keys)
        parts = (self.magic, u32(self.version), counts, *self.values, *self.records)
        return b"".join(parts)

    def build(self) -> bytes:
        """The whole file."""
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data


def write(path: Path, raw: bytes, size: int = 0) -> Path:
    """Write a new file; a larger `size` makes the rest a hole, which takes no disk."""
    path.unlink(missing_ok=True)  # ext4 flushes files that are cut to nothing and written again
    with path.open("wb") as file:
        file.write(raw)
        if size > len(raw):
            file.truncate(size)
    return path
