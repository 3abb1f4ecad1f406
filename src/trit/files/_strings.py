"""Arrays of strings as GGUF stores them: walked fast, checked, decoded only when looked at.

A string is an eight-byte length and that many bytes of UTF-8, one after the other, so an array of them can
only be walked. The walk does nothing else per string; the checks are done on whole stretches:

- A length that leaves the file makes the next read fail, and the last end is compared once.
- If every length is below 128, the bytes of lengths and texts together are valid UTF-8 exactly if each
  text is: a length is then eight ASCII bytes, and an ASCII byte ends any sequence. The few longer
  lengths are overwritten with zeros in a copy first.
"""

import codecs
import struct
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError

_LENGTH_BYTES = 8
_WALK_STRINGS = 1 << 16  # strings walked between two looks at how far the walk has come
_CHECK_BYTES = 1 << 20  # bytes of UTF-8 checked at once; decoding makes up to four times as many


class StringArray(Sequence[str]):
    """A sequence of str over the bytes of a file; each string is decoded when asked for."""

    def __init__(self, view: memoryview, offsets: NDArray[np.int64]) -> None:
        """`offsets` (count + 1,) int64: where in `view` each string's length lies, and the end."""
        self._view = view
        self._offsets = offsets

    @property
    def end(self) -> int:
        """The first byte after the last string."""
        return int(self._offsets[-1])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return str(self.bytes_at(index), "utf-8")

    def __iter__(self) -> Iterator[str]:
        raw = self.encoded()
        first, *ends = (self._offsets - self._offsets[0]).tolist()
        for end in ends:
            yield raw[first + _LENGTH_BYTES : end].decode("utf-8")
            first = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return self.encoded() == other.encoded()
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StringArray({len(self)} strings)"

    def bytes_at(self, index: int) -> memoryview:
        """The UTF-8 of one string; IndexError beyond the ends."""
        count = len(self)
        if not -count <= index < count:
            raise IndexError(index)
        index %= count
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        return self._view[start + _LENGTH_BYTES : end]

    def lengths(self) -> NDArray[np.int64]:
        """The length of every string in bytes, (count,) int64."""
        return np.diff(self._offsets) - _LENGTH_BYTES

    def encoded(self) -> bytes:
        """The array's items as they lie in the file, lengths included."""
        return bytes(self._view[int(self._offsets[0]) : int(self._offsets[-1])])


def scan_strings(
    path: object, where: str, view: memoryview, start: int, count: int, end: int
) -> StringArray:
    """Walk `count` strings of `view` from byte `start`, none beyond byte `end`, and check their UTF-8.

    InvalidFileError names `path`, `where` and the first string at fault. Memory: 8 bytes a string.
    """
    offsets = np.empty(count + 1, dtype=np.int64)
    length_at = struct.Struct("<Q").unpack_from
    at = start
    for first in range(0, count, _WALK_STRINGS):
        walked: list[int] = []
        note = walked.append
        try:
            for _ in range(min(_WALK_STRINGS, count - first)):
                note(at)
                at += length_at(view, at)[0] + _LENGTH_BYTES
        except (struct.error, OverflowError):
            # The walk is over the end: the string before this one claims too much, or this one is cut.
            at = end + 1
        if at > end:
            _reject_long(path, where, view, walked, first, end)
        offsets[first : first + len(walked)] = walked
    offsets[count] = at
    _check_utf8(path, where, view, offsets)
    return StringArray(view, offsets)


def _reject_long(
    path: object, where: str, view: memoryview, walked: list[int], first: int, end: int
) -> None:
    """Raise for the first of the walked strings, the `first`-th and on, that passes `end`."""
    for index, at in enumerate(walked, first):
        rest = end - at - _LENGTH_BYTES
        if rest < 0:
            problem = f"expected {_LENGTH_BYTES} bytes of length, got {max(0, end - at)}"
            raise InvalidFileError(path, f"{where}, string {index} at offset {at}", problem)
        (length,) = struct.unpack_from("<Q", view, at)
        if length > rest:
            problem = f"expected a length of at most the remaining {rest} bytes, got {length}"
            raise InvalidFileError(path, f"{where}, string {index} at offset {at}", problem)
    raise AssertionError("no string passes the end")


def _check_utf8(path: object, where: str, view: memoryview, offsets: NDArray[np.int64]) -> None:
    first, count = 0, len(offsets) - 1
    while first < count:
        # As many strings as start within one stretch; at least one, however long it is.
        reach = int(np.searchsorted(offsets, offsets[first] + _CHECK_BYTES))
        last = min(max(reach, first + 2) - 1, count)
        if not _all_utf8(view, offsets[first : last + 1]):
            for index in range(first, last):
                start, end = int(offsets[index]) + _LENGTH_BYTES, int(offsets[index + 1])
                check_utf8(path, f"{where}, string {index}", view, start, end)
        first = last


def _all_utf8(view: memoryview, offsets: NDArray[np.int64]) -> bool:
    """Whether all these strings are UTF-8; a single one may be left undecided (False)."""
    start, end = int(offsets[0]), int(offsets[-1])
    if end - start > 2 * _CHECK_BYTES:
        return False  # one long string: checked by itself, piece by piece
    long = offsets[:-1][np.diff(offsets) >= 128 + _LENGTH_BYTES] - start
    raw: memoryview | bytearray = view[start:end]
    if len(long):
        raw = bytearray(raw)
        for at in long.tolist():
            raw[at : at + _LENGTH_BYTES] = bytes(_LENGTH_BYTES)
    try:
        str(raw, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def check_utf8(path: object, where: str, view: memoryview, start: int, end: int) -> None:
    """Raise InvalidFileError unless view[start:end] is UTF-8; looks at it in pieces."""
    at = start
    while at < end:
        stop = min(at + _CHECK_BYTES, end)
        try:
            at += codecs.utf_8_decode(view[at:stop], "strict", stop == end)[1]
        except UnicodeDecodeError as error:
            byte = view[at + error.start]
            problem = f"expected UTF-8, got byte 0x{byte:02x} at offset {at + error.start}"
            raise InvalidFileError(path, where, problem) from None
