"""The bytes of a GGUF header, and where the data of each tensor goes.

Version 3, little endian; tensors contiguous in the order given, each at a multiple of the
alignment, the last one padded too, as every producer does it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trit.files._header import DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, MAX_NAME_BYTES
from trit.files._layout import aligned
from trit.files._tensor import TensorInfo
from trit.files._values import Plain, Value, ValueType, encode_string, encode_value, value_of

_VERSION = 3


@dataclass(frozen=True)
class Blueprint:
    """A file before its data: the header's bytes, the offset of every tensor, the size of it
    all."""

    header: bytes
    offsets: dict[str, int]  # from the start of the file
    infos: dict[str, TensorInfo]
    size: int

    @cached_property
    def data_bytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return sum(info.nbytes for info in self.infos.values())


def draw(metadata: Mapping[str, Plain | Value], tensors: Sequence[TensorInfo]) -> Blueprint:
    """Lay out a file.

    What GGUF cannot hold (a long name, five dimensions) fails an assertion: files that were read
    have neither, and names are made by us.
    """
    values = {key: value_of(plain) for key, plain in metadata.items()}
    default = Value(ValueType.UINT32, DEFAULT_ALIGNMENT)
    alignment = values.get("general.alignment", default).value
    assert isinstance(alignment, int), alignment
    parts = [MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(values))]
    parts += [encode_string(key) + encode_value(value) for key, value in values.items()]
    relative: dict[str, int] = {}
    end = 0
    for info in tensors:
        assert info.name not in relative, f"{info.name} twice"
        relative[info.name] = end
        parts.append(_encode_record(info, end))
        end = aligned(end + info.nbytes, alignment)
    header = b"".join(parts)
    start = aligned(len(header), alignment)
    offsets = {name: start + offset for name, offset in relative.items()}
    return Blueprint(header, offsets, {info.name: info for info in tensors}, start + end)


def _encode_record(info: TensorInfo, offset: int) -> bytes:
    name = encode_string(info.name)
    dims = info.shape[::-1]
    assert 0 < len(name) - 8 <= MAX_NAME_BYTES, f"{info.name!r} is no name for a GGUF tensor"
    assert 1 <= len(dims) <= MAX_DIMENSIONS and min(dims) > 0, f"{info.name}: {info.shape}"
    numbers = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return name + numbers + struct.pack("<IQ", info.format.ggml_type, offset)
