"""The types of GGUF's metadata values, and their bytes.

A value read from a file is a plain str, int, float or bool; an array of strings is a `StringArray`,
any other array a numpy array of its type. `Value` pairs a value with its exact GGUF type, for
writing a key as its source had it. Spec: ggml, docs/gguf.md.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from trit.files._strings import StringArray

Scalar = str | int | float | bool
Array = StringArray | NDArray[np.generic] | Sequence[Scalar]
Plain = Scalar | Array


class ValueType(IntEnum):
    """GGUF's numbers for the types of values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


DTYPES: dict[ValueType, np.dtype[np.generic]] = {
    ValueType.UINT8: np.dtype("<u1"),
    ValueType.INT8: np.dtype("<i1"),
    ValueType.UINT16: np.dtype("<u2"),
    ValueType.INT16: np.dtype("<i2"),
    ValueType.UINT32: np.dtype("<u4"),
    ValueType.INT32: np.dtype("<i4"),
    ValueType.FLOAT32: np.dtype("<f4"),
    ValueType.BOOL: np.dtype("?"),
    ValueType.UINT64: np.dtype("<u8"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.FLOAT64: np.dtype("<f8"),
}
_TYPES = {dtype: value_type for value_type, dtype in DTYPES.items()}


@dataclass(frozen=True, eq=False)
class Value:
    """A value and its GGUF type; for an array (any sequence but a str) the type of its items."""

    type: ValueType
    value: Plain

    @property
    def is_array(self) -> bool:
        """Whether it is written as an array."""
        return not isinstance(self.value, str | int | float | bool | np.generic)


def value_of(plain: Plain | Value) -> Value:
    """The value with the type that GGUF's producers give it.

    bool → BOOL; int → UINT32 where it fits, else INT32, UINT64, INT64; float → FLOAT32; str →
    STRING. Lists take the type of their items, ints INT32 where they fit, as llama.cpp writes them;
    numpy arrays and scalars keep theirs. TypeError for anything else: that is our bug, not a user's
    input.
    """
    if isinstance(plain, Value):
        return plain
    if isinstance(plain, StringArray):
        return Value(ValueType.STRING, plain)
    if isinstance(plain, np.ndarray | np.generic):
        return Value(_TYPES[plain.dtype.newbyteorder("<")], plain)
    if isinstance(plain, str | bool | int | float):
        return Value(_scalar_type(plain, (ValueType.UINT32, ValueType.INT32)), plain)
    kinds = {type(item) for item in plain}
    if kinds == {int}:
        low = _scalar_type(min(plain), (ValueType.INT32, ValueType.UINT32))
        high = _scalar_type(max(plain), (ValueType.INT32, ValueType.UINT32))
        return Value(low if low == high else ValueType.INT64, plain)
    if len(kinds) != 1:
        raise TypeError(f"a GGUF array needs items of one type, not {kinds or 'none at all'}")
    return Value(_scalar_type(plain[0], ()), plain)


def _scalar_type(scalar: Scalar, first: tuple[ValueType, ...]) -> ValueType:
    if isinstance(scalar, str):
        return ValueType.STRING
    if isinstance(scalar, bool):
        return ValueType.BOOL
    if isinstance(scalar, float):
        return ValueType.FLOAT32
    for value_type in (*first, ValueType.UINT64, ValueType.INT64):
        limits = np.iinfo(str(DTYPES[value_type]))
        if limits.min <= scalar <= limits.max:
            return value_type
    raise TypeError(f"{scalar} does not fit any integer type of GGUF")


def encode_string(text: str) -> bytes:
    """A GGUF string: its length in bytes, then UTF-8."""
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def encode_value(value: Value) -> bytes:
    """The type number and the bytes of a value, as they follow the key in the file."""
    if not value.is_array:
        return struct.pack("<I", value.type) + _encode_scalar(value)
    array = value.value
    assert not isinstance(array, str | int | float | bool)
    head = struct.pack("<IIQ", ValueType.ARRAY, value.type, len(array))
    if isinstance(array, StringArray):
        return head + array.encoded()
    if value.type is ValueType.STRING:
        return head + b"".join(encode_string(str(item)) for item in array)
    return head + _encode_numbers(value)


def _encode_scalar(value: Value) -> bytes:
    if value.type is ValueType.STRING:
        assert isinstance(value.value, str), value
        return encode_string(value.value)
    return _encode_numbers(value)


def _encode_numbers(value: Value) -> bytes:
    """Numbers in the value's type; TypeError for a whole number that it cannot hold."""
    numbers = np.asarray(value.value)
    cast = numbers.astype(DTYPES[value.type])
    if numbers.dtype.kind not in "f" and not np.array_equal(cast, numbers):
        raise TypeError(f"{value.value!r:.80} does not fit {value.type.name}")
    return cast.tobytes()
