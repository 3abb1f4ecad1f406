"""Checked access to untyped keys: GGUF metadata and config.json alike.

Every value a model file names is read through here, so a wrong type or a value out of range becomes
an InvalidFileError that names the file, the key, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np

from trit.errors import InvalidFileError

MAX_COUNT = 2**31 - 1
MAX_HEAD_DIM = 1 << 16  # far above any model; keeps a hostile file from asking for gigabytes
MIN_NUMBER = float(np.finfo(np.float32).tiny)
MAX_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Fields:
    """The keys of `values` that begin with `prefix`; `path` names the file in errors.

    A key that is absent or null takes the default; without a default it is an error.
    """

    values: Mapping[str, Any]
    path: object
    prefix: str = ""

    def error(self, key: str, problem: str) -> InvalidFileError:
        """An error about `key`, to be raised by the caller."""
        return InvalidFileError(self.path, f"key '{self.prefix}{key}'", problem)

    def has(self, key: str) -> bool:
        """Whether `key` is there and not null."""
        return self.values.get(self.prefix + key) is not None

    def count(
        self, key: str, default: int | None = None, low: int = 1, high: int = MAX_COUNT
    ) -> int:
        """An integer from `low` to `high`."""
        return self._integer(key, self._value(key, default), low, high)

    def number(self, key: str, default: float | None = None, high: float = MAX_NUMBER) -> float:
        """A number above zero and at most `high`, both as float32 sees them."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self.error(key, f"expected a number, got {_describe(value)}.")
        # Compared before it becomes a float: an integer of JSON can be too large for one.
        if not MIN_NUMBER <= cast(float, value) <= high:
            limit = "" if high == MAX_NUMBER else f" up to {high:g}"
            raise self.error(
                key, f"expected a finite number above zero{limit}, got {_describe(value)}."
            )
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """As `number`; None when absent, and for 0, which files use for 'off'."""
        value = self.values.get(self.prefix + key)
        if value is None or (not isinstance(value, bool) and value == 0):
            return None
        return self.number(key)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"expected a string, got {_describe(value)}.")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A boolean."""
        value = self._value(key, default)
        if not isinstance(value, bool | np.bool_):
            raise self.error(key, f"expected true or false, got {_describe(value)}.")
        return bool(value)

    def per_layer(
        self, key: str, layers: int, default: tuple[int, ...] | None = None
    ) -> tuple[int, ...]:
        """One positive integer per layer, from a single value or an array of `layers` values."""
        if default is not None and not self.has(key):
            return default
        value = self._value(key, None)
        if not is_list(value):
            return (self._integer(key, value, 1, MAX_COUNT),) * layers
        self._check_length(key, value, layers)
        return tuple(self._integer(key, item, 1, MAX_COUNT) for item in value)

    def flags(self, key: str, layers: int) -> tuple[bool, ...]:
        """One boolean per layer; integers 0 and 1 count, as stock readers take them."""
        value = self._value(key, None)
        if not is_list(value):
            raise self.error(key, f"expected an array, got {_describe(value)}.")
        self._check_length(key, value, layers)
        if any(item not in (0, 1) for item in value):
            raise self.error(key, "expected an array of true and false.")
        return tuple(bool(item) for item in value)

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(self.prefix + key)
        if value is None:
            if default is None:
                raise self.error(key, "missing; the model cannot be built without it.")
            return default
        return value

    def _integer(self, key: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise self.error(key, f"expected an integer, got {_describe(value)}.")
        if not low <= int(value) <= high:
            raise self.error(key, f"expected {low} to {high}, got {int(value)}.")
        return int(value)

    def _check_length(self, key: str, value: Sequence[Any], layers: int) -> None:
        if len(value) != layers:
            raise self.error(
                key, f"expected one value per layer ({layers}), got {len(value)} values."
            )


def is_list(value: object) -> bool:
    """Whether a metadata value is an array (list, numpy array or a lazy sequence)."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def float32(value: float) -> float:
    """`value` as a GGUF stores it, so that a folder and the GGUF made from it give equal plans."""
    return float(np.float32(value))


def _describe(value: object) -> str:
    if isinstance(value, str):
        return f"the string {value[:40]!r}"
    if is_list(value):
        return "an array"
    return repr(value)[:60]
