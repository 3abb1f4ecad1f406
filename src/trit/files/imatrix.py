"""Importance data: how strongly each input column of a matrix is used, as llama.cpp records it.

Two layouts are read. One is a GGUF without a model, which is also what is written here:
`<tensor>.in_sum2` holds the sums of the squared inputs per column (one row per expert) and
`<tensor>.counts` how many inputs they sum; newer files add plain sums, `<tensor>.in_sum`, which
nothing here needs. The older one (`imatrix.dat`) is a bare sequence of little-endian records:

    int32 entries, then per entry: int32 length, name, int32 calls, int32 values, float32 × values
    optionally: int32 chunks, int32 length, name of the text

What quantizers want is the mean square per column: sums divided by counts, and 1 everywhere for an
expert that saw no input. Spec: llama.cpp, tools/imatrix and common/imatrix-loader.
"""

import os
import struct
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import formats
from trit.errors import InvalidFileError
from trit.files import gguf
from trit.files._mapping import Mapping
from trit.files.gguf import Plain, TensorInfo, Value, ValueType

Floats = NDArray[np.float32]

MAGIC = b"GGUF"
MAX_ENTRIES = 1 << 16
MAX_NAME_BYTES = 4096
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")


@dataclass(frozen=True)
class Imatrix:
    """Mean squared inputs by tensor name: float32 (matrices * columns,), matrix after matrix.

    `datasets` names the texts, `chunks` counts the pieces of text they were measured on. `metadata`
    has the keys of a GGUF that are texts.
    """

    path: Path
    entries: dict[str, Floats]
    datasets: tuple[str, ...]
    chunks: int
    metadata: MappingOf[str, str] = field(default_factory=dict)
    digest: str = ""  # sha256 of the file, where it is known

    @property
    def sha256(self) -> str:
        """Of the file."""
        return self.digest or gguf.sha256(self.path)

    def importance(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """For a tensor of this name and shape: float32 (matrices, columns), or None without data.

        InvalidFileError if there is data of another size, which means another model; but not for
        embeddings, whose lookups have no inputs to measure.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        columns = shape[-1]
        matrices = int(np.prod(shape[:-2], dtype=np.int64)) if len(shape) > 2 else 1
        if entry.size == matrices * columns:
            return entry.reshape(matrices, columns)
        if name in _EMBEDDINGS:
            return None
        raise InvalidFileError(
            self.path,
            f"entry {name!r}",
            f"expected {matrices} × {columns} values for the model's tensor, got {entry.size}. "
            "The importance data is of another model.",
        )


def load(path: str | os.PathLike[str]) -> Imatrix:
    """Read importance data of either layout; InvalidFileError for anything else."""
    mapping = Mapping(path)  # no pipe, no device, and nothing that is not looked at is read
    try:
        if mapping.buffer[:4] == MAGIC:
            return _load_gguf(mapping.path)
        return _load_legacy(mapping)
    finally:
        mapping.close()


def begin(
    path: str | os.PathLike[str],
    shapes: MappingOf[str, tuple[int, int]],
    datasets: Sequence[str],
    chunks: int,
    chunk_size: int,
    extra: MappingOf[str, Plain | Value] | None = None,
    job: str | None = None,
) -> gguf.Writer:
    """Begin a file of importance data as llama.cpp's tools read it; `put` every tensor, `finish`.

    shapes      (matrices, columns) of each tensor's inputs, by its name
    datasets    names of the texts
    chunks      pieces of text, of `chunk_size` tokens
    extra       more keys
    job         all that the data depend on, see gguf.Writer
    Errors as for gguf.Writer, before anything is measured.
    """
    keys: dict[str, Plain | Value] = {
        "general.type": "imatrix",
        "imatrix.datasets": Value(ValueType.STRING, list(datasets)),
        "imatrix.chunk_count": Value(ValueType.UINT32, chunks),
        "imatrix.chunk_size": Value(ValueType.UINT32, chunk_size),
        **(extra or {}),
    }
    infos = []
    for name, (matrices, columns) in sorted(shapes.items()):
        infos.append(TensorInfo(f"{name}.in_sum2", (matrices, columns), formats.get("f32")))
        infos.append(TensorInfo(f"{name}.counts", (matrices, 1), formats.get("f32")))
    return gguf.Writer(path, keys, infos, job=job)


def put(
    writer: gguf.Writer, name: str, sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> None:
    """Write Σ x² (matrices, columns) of a tensor and how many x (matrices,), 0 where none was seen.

    Both become float32, which holds counts below 16,777,216 exactly. What an interrupted job has
    written stays.
    """
    for part, values in ((f"{name}.in_sum2", sums), (f"{name}.counts", counts)):
        if not writer.holds(part):
            writer.add(part, np.ascontiguousarray(values, "<f4").view(np.uint8))


def _load_gguf(path: Path) -> Imatrix:
    with gguf.open(path, model=False) as file:
        keys = {name: file.metadata.get(f"imatrix.{name}") for name in _KEYS}
        for name, value in keys.items():
            if value is None:
                problem = "expected in importance data, got no such key"
                raise InvalidFileError(path, f"key 'imatrix.{name}'", problem)
        entries = {}
        for name in file.tensors:
            if name.endswith(".in_sum2"):
                base = name.removesuffix(".in_sum2")
                entries[base] = _mean(path, base, _floats(file, name), _counts(file, base))
            elif not name.endswith((".counts", ".in_sum")):
                problem = "expected only .in_sum2, .counts and .in_sum in importance data"
                raise InvalidFileError(path, f"tensor {name!r}", problem)
    if not entries:
        raise InvalidFileError(path, "", "expected importance data, got no entries")
    chunks, datasets = keys["chunk_count"], keys["datasets"]
    if not isinstance(chunks, int) or isinstance(datasets, str | int | float):
        raise InvalidFileError(path, "key 'imatrix.chunk_count'", "expected a count")
    assert datasets is not None
    names = tuple(str(name) for name in datasets)
    ours = {key: text for key, text in file.metadata.items() if isinstance(text, str)}
    return Imatrix(path, entries, names, chunks, ours)


_KEYS = ("datasets", "chunk_count", "chunk_size")


def _floats(file: gguf.GGUF, name: str) -> Floats:
    tensor = file[name]
    if tensor.format.name != "f32":
        problem = f"expected f32, got {tensor.format.name}"
        raise InvalidFileError(file.path, f"tensor {name!r}", problem)
    return tensor.decode().reshape(-1)


def _counts(file: gguf.GGUF, base: str) -> Floats:
    counts = np.rint(_floats(file, f"{base}.counts"))
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise InvalidFileError(file.path, f"tensor '{base}.counts'", "expected counts")
    return counts


def _mean(path: Path, name: str, sums: Floats, counts: Floats) -> Floats:
    """Sums over counts: one count for all, or one per matrix."""
    if sums.size % counts.size:
        problem = f"expected a multiple of {counts.size} sums, got {sums.size}"
        raise InvalidFileError(path, f"entry {name!r}", problem)
    _check(path, name, sums)
    table = sums.reshape(counts.size, -1)
    seen = counts[:, None] > 0
    divided = np.divide(table, counts[:, None], out=np.ones_like(table), where=seen)
    return divided.reshape(-1)


def _check(path: Path, name: str, values: Floats) -> None:
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        index = int(bad.argmax())
        problem = f"expected a finite mean of squares, got {values[index]} at {index}"
        raise InvalidFileError(path, f"entry {name!r}", problem)


class _Legacy:
    """Reads the older layout, each length checked against the rest of the file."""

    def __init__(self, mapping: Mapping) -> None:
        self.path = mapping.path
        self.data = mapping.buffer
        self.at = 0

    def take(self, count: int, what: str) -> bytes:
        rest = len(self.data) - self.at
        if not 0 <= count <= rest:
            problem = f"expected {count} bytes, got {rest}"
            raise InvalidFileError(self.path, f"{what} at offset {self.at}", problem)
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, what: str, low: int, high: int) -> int:
        at = self.at
        number: int = struct.unpack("<i", self.take(4, what))[0]
        if not low <= number <= high:
            problem = f"expected {low} to {high}, got {number}"
            raise InvalidFileError(self.path, f"{what} at offset {at}", problem)
        return number

    def text(self, what: str) -> str:
        raw = self.take(self.integer(f"length of {what}", 0, MAX_NAME_BYTES), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            problem = f"expected UTF-8, got {raw[:40]!r}"
            raise InvalidFileError(self.path, f"{what} at offset {self.at}", problem) from None


def _load_legacy(mapping: Mapping) -> Imatrix:
    path, reader = mapping.path, _Legacy(mapping)
    limit = (1 << 31) - 1
    entries: dict[str, Floats] = {}
    for index in range(reader.integer("number of entries", 1, MAX_ENTRIES)):
        name = reader.text(f"name of entry {index}")
        calls = reader.integer(f"calls of entry {index}", 0, limit)
        size = reader.integer(f"values of entry {index}", 1, limit // 4)
        values = np.frombuffer(reader.take(4 * size, f"entry {name!r}"), "<f4").astype(np.float32)
        _check(path, name, values)
        entries[name] = values / np.float32(calls) if calls else values
    chunks, datasets = 0, ""
    if reader.at < len(reader.data):
        chunks = reader.integer("number of chunks", 0, limit)
    if reader.at < len(reader.data):
        datasets = reader.text("name of the text")
    return Imatrix(path, entries, (datasets,) if datasets else (), chunks)
