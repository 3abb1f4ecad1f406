"""Pieces, scores and types out of a SentencePiece `tokenizer.model`, without its library.

The file is one protocol-buffer message; three of its fields matter. A message is a run of fields,
each a varint tag (number · 8 + wire type) and a value: varint (0), 8 bytes (1), length and bytes
(2), 4 bytes (5).
Spec: sentencepiece_model.proto; https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trit.errors import InvalidFileError, UnsupportedError

_BPE = 2
_UNIGRAM = 1

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `type` is one of the constants of this module."""

    text: str
    score: float
    type: int


def read(path: Path) -> list[Piece]:
    """The vocabulary in the order of ids. Raises InvalidFileError, UnsupportedError."""
    data = path.read_bytes()
    try:
        pieces, kind = _model(memoryview(data))
    except (ValueError, IndexError, struct.error) as error:
        raise InvalidFileError(path, "", f"expected a SentencePiece model: {error}.") from None
    if not pieces:
        raise InvalidFileError(path, "", "expected a SentencePiece model, got one without pieces.")
    if kind != _BPE:
        raise UnsupportedError(f"{path}: only SentencePiece models of the BPE kind are supported.")
    return pieces


def _model(message: memoryview) -> tuple[list[Piece], int]:
    pieces, kind = [], _UNIGRAM
    for number, value in _fields(message):
        if number == 1 and isinstance(value, memoryview):
            pieces.append(_piece(value))
        elif number == 2 and isinstance(value, memoryview):
            for inner, setting in _fields(value):
                if inner == 3 and isinstance(setting, int):
                    kind = setting
    return pieces, kind


def _piece(message: memoryview) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(message):
        if number == 1 and isinstance(value, memoryview):
            text = str(value, "utf-8")
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"a piece of the unknown type {kind}")
    return Piece(text, score, kind)


def _fields(message: memoryview) -> Iterator[tuple[int, int | bytes | memoryview]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if size > len(message) - at:
            raise ValueError(f"a field of {size} bytes where {len(message) - at} are left")
        part = message[at : at + size]
        yield number, part if wire == 2 else bytes(part)
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")
