"""TOML tables into frozen dataclasses, every key checked: a misspelt setting is an error.

A field's metadata says what its value may be: `low` and `high` (both allowed), `choices`. Types are
bool, int, float (an integer serves), str, paths, tuples of these, None beside them, and dataclasses
for tables within tables.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from trit.errors import InvalidFileError, UsageError

T = TypeVar("T")

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def read(path: Path) -> dict[str, Any]:
    """The tables of a file. UsageError if there is none, InvalidFileError if it is not TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file. Name a TOML file to train by.") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder: name the TOML file to train by.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidFileError(path, "", f"is not TOML: {error}.") from None


def table(kind: type[T], values: Mapping[str, Any], path: Path, where: str = "") -> T:
    """A dataclass of type `kind` from a table; `where` is the table's name with a dot behind.

    Raises InvalidFileError, which names the key, what was expected and what is there.
    """
    assert is_dataclass(kind)
    known = {field.name: field for field in fields(kind)}
    for key in values:
        if key not in known:
            raise _error(path, where + key, _unknown(key, list(known)))
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for name, field in known.items():
        if name in values:
            made[name] = _value(hints[name], values[name], field, path, where + name)
        elif is_dataclass(hints[name]):
            made[name] = table(hints[name], {}, path, f"{where}{name}.")
        elif field.default is MISSING:
            raise _error(path, where + name, f"missing: expected {_words(hints[name], field)}.")
    return kind(**made)


def _value(hint: Any, value: Any, field: Field[Any], path: Path, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _error(path, where, f"expected a table, got {value!r:.60}.")
        return table(hint, value, path, where + ".")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        fixed = len(kinds) if kinds[-1] is not Ellipsis else None
        if not isinstance(value, list) or fixed not in (None, len(value)):
            raise _error(path, where, _expected(hint, field, value))
        return tuple(
            _value(kinds[0], each, field, path, f"{where}[{i}]") for i, each in enumerate(value)
        )
    kind = next(iter(_plain(hint)))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not (str if kind is Path else kind):
        raise _error(path, where, _expected(hint, field, value))
    if kind is Path:
        return Path(str(value))
    low, high = field.metadata.get("low"), field.metadata.get("high")
    outside = (low is not None and value < low) or (high is not None and value > high)
    choices = field.metadata.get("choices")
    unfit = isinstance(value, float) and not math.isfinite(value)
    if outside or unfit or (choices is not None and value not in choices):
        raise _error(path, where, _expected(hint, field, value))
    return value


def _plain(hint: Any) -> list[type]:
    """The types of a hint, None left out."""
    if get_origin(hint) is UnionType:
        return [kind for kind in get_args(hint) if kind is not NoneType]
    return [hint]


def _words(hint: Any, field: Field[Any]) -> str:
    if "choices" in field.metadata:
        return "one of " + ", ".join(repr(each) for each in field.metadata["choices"])
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        count = "" if kinds[-1] is Ellipsis else f" of {len(kinds)}"
        return f"a list{count}, each {_words(kinds[0], field)}"
    kind = _plain(hint)[0]
    if is_dataclass(kind):
        return "a table"
    words = "a path" if kind is Path else _WORDS[kind]
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and high is not None:
        return f"{words} from {low} to {high}"
    return words if low is None else f"{words} of {low} or more"


def _expected(hint: Any, field: Field[Any], value: object) -> str:
    return f"expected {_words(hint, field)}, got {value!r:.60}."


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"there is no such key.{hint} Known are {', '.join(known)}."


def _error(path: Path, where: str, problem: str) -> InvalidFileError:
    return InvalidFileError(path, f"key '{where}'", problem)
