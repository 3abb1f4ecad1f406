"""JSON files of an HF folder, read as data: bounded, strict, every failure a typed error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from trit.errors import InvalidFileError

# The largest published tokenizer.json (Gemma 3) is 33 MB; a config is some kB.
_MAX_BYTES = 128 << 20

Object = dict[str, Any]


def read_object(path: Path) -> Object:
    """The JSON object in a file. Raises InvalidFileError for anything else."""
    text = read_text(path)
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise InvalidFileError(path, "", "expected JSON, got too deep a nesting.") from None
    except ValueError as error:
        raise InvalidFileError(path, "", f"expected JSON, got {error}.") from None
    if not isinstance(value, dict):
        raise InvalidFileError(path, "", f"expected a JSON object, got {type(value).__name__}.")
    return value


def read_optional(path: Path) -> Object:
    """As `read_object`; {} if there is no such file."""
    return read_object(path) if path.is_file() else {}


def read_text(path: Path) -> str:
    """A text file in UTF-8, of bounded size."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise InvalidFileError(path, "", f"expected at most {_MAX_BYTES} bytes, got {size}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFileError(path, f"offset {error.start}", "expected UTF-8.") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"the constant {constant}, which JSON does not have")
