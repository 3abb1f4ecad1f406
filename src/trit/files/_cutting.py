"""Where a model is cut into shards, and the keys that each of them has.

Tensors keep their order. The first shard has all keys of the model, as other tools write it and
expect it; every shard says which it is, of how many shards and of how many tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from trit.errors import UsageError
from trit.files._encode import draw
from trit.files._header import DEFAULT_ALIGNMENT
from trit.files._layout import aligned
from trit.files._tensor import TensorInfo
from trit.files._values import Plain, Value, ValueType, value_of

Keys = Mapping[str, Plain | Value]
Item = TypeVar("Item", bound=TensorInfo)

SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
MOST_SHARDS = 0xFFFF  # as `split.count` is stored


@dataclass(frozen=True)
class Part(Generic[Item]):
    """One shard: the file's name, its keys and its tensors."""

    path: Path
    values: Keys
    tensors: list[Item]

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return draw(self.values, self.tensors).size


def cut(
    prefix: Path,
    values: Keys,
    tensors: Sequence[Item],
    max_bytes: int | None = None,
    max_tensors: int | None = None,
) -> list[Part[Item]]:
    """The shards PREFIX-00001-of-0000N.gguf of a model, none above `max_bytes` or `max_tensors`.

    `values` are the model's keys but for SPLIT_KEYS. UsageError for no limit, or for one that
    cannot be kept: a tensor is never cut.
    """
    if max_bytes is None and max_tensors is None:
        raise UsageError("no limit: expected max_bytes or max_tensors (--max-size, --max-tensors).")
    if max_tensors is not None and max_tensors < 1:
        raise UsageError(f"at most {max_tensors} tensors per shard: expected one or more")
    cuts = _cuts(values, tensors, max_bytes, max_tensors)
    if len(cuts) > MOST_SHARDS:
        raise UsageError(f"{len(cuts):,} shards: at most {MOST_SHARDS:,} are possible")
    parts = []
    for number, part in enumerate(cuts):
        path = prefix.with_name(f"{prefix.name}-{number + 1:05}-of-{len(cuts):05}.gguf")
        place = _place(number, len(cuts), len(tensors))
        parts.append(Part(path, {**values, **place} if number == 0 else place, part))
    return parts


def _place(number: int, count: int, tensors: int) -> dict[str, Value]:
    return {
        "split.no": Value(ValueType.UINT16, number),
        "split.tensors.count": Value(ValueType.INT32, tensors),
        "split.count": Value(ValueType.UINT16, count),
    }


def _cuts(
    values: Keys, tensors: Sequence[Item], max_bytes: int | None, max_tensors: int | None
) -> list[list[Item]]:
    """The tensors in order, cut where a shard would become too large."""
    parts: list[list[Item]] = [[]]
    room = _Room({**values, **_place(0, 1, 0)})
    for tensor in tensors:
        full = max_bytes is not None and room.size_with(tensor) > max_bytes
        if parts[-1] and (full or len(parts[-1]) == max_tensors):
            parts.append([])
            room = _Room(_place(0, 1, 0))
        if max_bytes is not None and room.size_with(tensor) > max_bytes:
            keys = " and the keys of the model" if len(parts) == 1 else ""
            raise UsageError(
                f"shards of {max_bytes:,} bytes are too small for tensor {tensor.name!r}{keys}: "
                f"that takes {room.size_with(tensor):,}. Allow larger ones."
            )
        room.add(tensor)
        parts[-1].append(tensor)
    return parts


class _Room:
    """How large a shard is that begins with these keys."""

    def __init__(self, values: Keys) -> None:
        alignment = value_of(values.get("general.alignment", DEFAULT_ALIGNMENT)).value
        assert isinstance(alignment, int), alignment
        self._alignment = alignment
        self._empty = len(draw(values, []).header)
        self._records = self._data = 0

    def size_with(self, tensor: TensorInfo) -> int:
        """Its bytes if the tensor joins those that are in it."""
        header = self._empty + self._records + _record_bytes(tensor)
        data = self._data + aligned(tensor.nbytes, self._alignment)
        return aligned(header, self._alignment) + data

    def add(self, tensor: TensorInfo) -> None:
        self._records += _record_bytes(tensor)
        self._data += aligned(tensor.nbytes, self._alignment)


def _record_bytes(tensor: TensorInfo) -> int:
    return len(draw({}, [tensor]).header) - len(draw({}, []).header)
