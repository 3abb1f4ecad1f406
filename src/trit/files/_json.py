"""Read JSON straight from mapped bytes: only what a fixed grammar expects, nothing built beside it.

The library's parser makes objects of whatever it is given: ten million entries take gigabytes and
seconds, nesting ends in RecursionError, repeated keys vanish, and 1.0 passes for 1. Here the caller
says what comes next, so depth is bounded by the caller's own code and every surprise is an error
with its offset. Spec: RFC 8259.
"""

import contextlib
import json
import re
from collections.abc import Iterator

from trit.errors import InvalidFileError
from trit.files._strings import check_utf8

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"([^"\\\x00-\x1f]*)"')
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_INTEGER = re.compile(rb"(?:0|[1-9][0-9]{0,19})(?![0-9.eE])")
_LAST_SPACE = ord(" ")
_OTHER = re.compile(rb"-?[0-9.eE+-]{1,40}|true|false|null")
_MAX_SKIPPED = 1 << 16  # bytes of a value that is skipped
_MAX_DEPTH = 16


class Reader:
    """A place in mapped JSON. Every method steps over what it reads or raises InvalidFileError."""

    def __init__(self, path: object, view: memoryview, start: int, end: int) -> None:
        self.path = path
        self.view = view
        self.at = start
        self.end = end

    def fail(self, expected: str, where: str = "") -> InvalidFileError:
        """The error that `expected` is not what stands here."""
        got = bytes(self.view[self.at : min(self.at + 24, self.end)])
        place = f"{where} at offset {self.at}" if where else f"offset {self.at}"
        return InvalidFileError(
            self.path, place, f"expected {expected}, got {got!r}" if got else f"expected {expected}"
        )

    def peek(self) -> str:
        """The next byte that is not a space, as a character; "" at the end."""
        if self.at < self.end and (byte := self.view[self.at]) > _LAST_SPACE:
            return chr(byte)
        match = _SPACE.match(self.view, self.at, self.end)
        assert match is not None
        self.at = match.end()
        return chr(self.view[self.at]) if self.at < self.end else ""

    def expect(self, mark: str, where: str = "") -> None:
        """One of JSON's punctuation marks."""
        if self.peek() != mark:
            raise self.fail(repr(mark), where)
        self.at += 1

    def string(self, where: str, longest: int) -> str:
        """A string of at most `longest` bytes between its quotes, in UTF-8."""
        self.peek()
        # Nearly all strings are plain; what is not, or wrong, goes the long way.
        match = _STRING.match(self.view, self.at, min(self.end, self.at + longest + 2))
        if match is not None:
            with contextlib.suppress(UnicodeDecodeError):
                text = str(match[1], "utf-8")
                self.at = match.end()
                return text
        return self._odd_string(where, longest)

    def _odd_string(self, where: str, longest: int) -> str:
        self.expect('"', where)
        start, escaped = self.at, False
        limit = min(self.end, start + longest + 1)
        while True:
            match = _PLAIN.match(self.view, self.at, limit)
            self.at = limit if match is None else match.end()
            if self.at >= limit:
                self.at = start
                raise self.fail(f"a string that ends within {longest} bytes", where)
            if self.view[self.at] == ord('"'):
                break
            escape = _ESCAPE.match(self.view, self.at, self.end)
            if escape is None:
                raise self.fail("an escape of JSON, and no bare control characters", where)
            self.at, escaped = escape.end(), True
        check_utf8(self.path, where, self.view, start, self.at)
        self.at += 1
        if escaped:
            return self._unescape(start - 1, where)
        return str(self.view[start : self.at - 1], "utf-8")

    def _unescape(self, start: int, where: str) -> str:
        text: str = json.loads(bytes(self.view[start : self.at]))
        try:
            text.encode("utf-8")  # a lone half of a surrogate pair is no character
        except UnicodeEncodeError:
            self.at = start
            raise self.fail("whole characters", where) from None
        return text

    def integer(self, where: str) -> int:
        """A whole number below 2^64: no sign, no fraction, no exponent."""
        self.peek()
        match = _INTEGER.match(self.view, self.at, self.end)
        if match is None or int(match[0]) >= 1 << 64:
            raise self.fail("a whole number from 0 to 2^64 - 1", where)
        self.at = match.end()
        return int(match[0])

    def integers(self, where: str, most: int) -> tuple[int, ...]:
        """An array of at most `most` whole numbers."""
        numbers: list[int] = []
        for _ in self.items(where):
            if len(numbers) == most:
                raise self.fail(f"at most {most} numbers", where)
            numbers.append(self.integer(where))
        return tuple(numbers)

    def items(self, where: str) -> Iterator[None]:
        """Walk an array: yields before each item, which the caller must read."""
        self.expect("[", where)
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield
            if self.peek() == "]":
                self.at += 1
                return
            self.expect(",", where)

    def keys(self, where: str, longest: int, most: int) -> Iterator[str]:
        """Walk an object: yields each key, whose value the caller must read.

        A key that comes twice, has more than `longest` bytes or is one of more than `most` fails.
        """
        seen: set[str] = set()
        self.expect("{", where)
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            start = self.at
            key = self.string(where, longest)
            if key in seen or len(seen) == most:
                self.at = start
                raise self.fail(f"at most {most} keys, and each of them once", where)
            seen.add(key)
            self.expect(":", where)
            yield key
            if self.peek() == "}":
                self.at += 1
                return
            self.expect(",", where)

    def skip(self, where: str) -> None:
        """Any value at all, of a size and depth that a note beside the data may have."""
        note = Reader(self.path, self.view, self.at, min(self.end, self.at + _MAX_SKIPPED))
        note._skip(where, _MAX_DEPTH)
        self.at = note.at

    def _skip(self, where: str, depth: int) -> None:
        mark = self.peek()
        if depth == 0 or not mark:
            limits = f"{_MAX_SKIPPED} bytes and {_MAX_DEPTH} levels"
            raise self.fail(f"a value within {limits}", where)
        if mark == "{":
            for _ in self.keys(where, _MAX_SKIPPED, _MAX_SKIPPED):
                self._skip(where, depth - 1)
        elif mark == "[":
            for _ in self.items(where):
                self._skip(where, depth - 1)
        elif mark == '"':
            self.string(where, _MAX_SKIPPED)
        else:
            match = _OTHER.match(self.view, self.at, self.end)
            if match is None:
                raise self.fail("a value", where)
            self.at = match.end()

    def finish(self) -> None:
        """Nothing but spaces up to the end."""
        if self.peek():
            raise self.fail("the end of the JSON")
