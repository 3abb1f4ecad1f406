"""Arrays of strings as GGUF stores them: walked fast, checked, decoded only when looked at.

A string is an eight-byte length and that many bytes of UTF-8, one after the other, so an array of
them can only be walked: a quarter of a million of them in a real model, at every start. So both
jobs are done for whole stretches at once, in numpy:

- Walking: see `_Walk.leap`.
- Checking: if every length is below 128, the bytes of lengths and texts together are valid UTF-8
  exactly if each text is. A length is then eight ASCII bytes, and an ASCII byte ends any sequence.
  The few longer lengths are overwritten with zeros in a copy first.
"""

import codecs
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError

_LENGTH_BYTES = 8
_WINDOW_BYTES = 1 << 18  # bytes searched for lengths at once
_PATIENCE = 10_000  # runs and single steps before leaping is given up: some 50 ms
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
    """Walk `count` strings of `view` from byte `start`, none beyond byte `end`, and check their
    UTF-8.

    InvalidFileError names `path`, `where` and the first string at fault. Memory: 8 bytes a string.
    """
    offsets = np.empty(count + 1, dtype=np.int64)
    walk = _Walk(path, where, view, end, offsets, start)
    walk.leap()
    walk.plod()
    offsets[count] = walk.at
    _check_utf8(path, where, view, offsets)
    return StringArray(view, offsets)


@dataclass
class _Walk:
    """A walk over strings: `offsets` are known up to the `done`-th, which begins at byte `at`."""

    path: object
    where: str
    view: memoryview
    end: int
    offsets: NDArray[np.int64]
    at: int
    done: int = 0

    def plod(self) -> None:
        """Walk to the end of the array, one string at a time."""
        length_at = struct.Struct("<Q").unpack_from
        view, at, last = self.view, self.at, self.end - _LENGTH_BYTES
        offsets = self.offsets.data  # whose items are set in half the time
        for index in range(self.done, len(self.offsets) - 1):
            if at > last:
                problem = f"expected {_LENGTH_BYTES} bytes of length, got {self.end - at}"
                raise self._fail(index, at, problem)
            offsets[index] = at
            (length,) = length_at(view, at)
            if length > last - at:
                problem = (
                    f"expected a length of at most the remaining {last - at} bytes, got {length}"
                )
                raise self._fail(index, at, problem)
            at += length + _LENGTH_BYTES
        self.at, self.done = at, len(self.offsets) - 1

    def leap(self) -> None:
        """Walk as far as lengths below 256 make it easy: several times faster than one by one.

        A byte followed by seven zeros is likely a length. Where each such place leads to the next,
        a whole run of strings is known at once; single steps lead over what breaks a run. Both are
        right for any bytes, and `patience` ends the leaping where the runs are too short to be
        worth it.
        """
        patience, count = _PATIENCE, len(self.offsets) - 1
        while self.done < count and patience and self.at + _LENGTH_BYTES <= self.end:
            stop = min(self.at + _WINDOW_BYTES, self.end)
            heads, ends = self._lengths_in(self.at, stop)
            breaks = np.flatnonzero(np.append(ends[:-1] != heads[1:], True))
            while self.done < count and self.at + _LENGTH_BYTES <= stop and patience:
                patience -= 1
                first = int(np.searchsorted(heads, self.at))
                if first == len(heads) or heads[first] != self.at:
                    if not self._step():
                        return
                    continue
                last = int(breaks[np.searchsorted(breaks, first)])
                last = min(last, first + count - self.done - 1)
                run = last + 1 - first
                self.offsets[self.done : self.done + run] = heads[first : last + 1]
                self.done += run
                self.at = int(ends[last])

    def _lengths_in(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where lengths below 256 may lie in view[start:stop], and where their strings end."""
        count = stop - start - _LENGTH_BYTES + 1
        words = np.ndarray((count,), "<u8", self.view, start, (1,))  # at every byte, overlapping
        heads = np.flatnonzero(words < 256)
        ends = heads + words[heads].astype(np.int64) + (start + _LENGTH_BYTES)
        inside = ends <= self.end
        return heads[inside] + start, ends[inside]

    def _step(self) -> bool:
        """Walk one string; False, and nothing done, if it does not fit (`plod` then says why)."""
        (length,) = struct.unpack_from("<Q", self.view, self.at)
        if length > self.end - self.at - _LENGTH_BYTES:
            return False
        self.offsets[self.done] = self.at
        self.done += 1
        self.at += length + _LENGTH_BYTES
        return True

    def _fail(self, index: int, at: int, problem: str) -> InvalidFileError:
        return InvalidFileError(self.path, f"{self.where}, string {index} at offset {at}", problem)


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
