"""The stored parts of one quantized linear, each checked for type and shape when it is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError, UnsupportedError
from trit.files._tensor import Bytes, Floats, Tensor
from trit.files.safetensors import SafeTensors, Stored
from trit.formats import get

Decode = Callable[[], Floats]
Groups = NDArray[np.intp]

FLOATS = ("F32", "F16", "BF16")


class Module:
    """A linear by its name in the folder; `parts` says which of its tensors there are.

    Errors name the folder and the tensor.
    """

    def __init__(self, source: SafeTensors, name: str, parts: frozenset[str]) -> None:
        self.name = name
        self.parts = parts
        self._source = source

    def error(self, part: str, problem: str) -> InvalidFileError:
        """That `part` is not what it should be."""
        return InvalidFileError(self._source.path, f"tensor '{self.name}.{part}'", problem)

    def stored(self, part: str, *types: str) -> Stored:
        """A part of one of some types that are not weights."""
        self._require(part)
        name = f"{self.name}.{part}"
        found = self._source.stored.get(name)
        if found is None or found.dtype not in types:
            got = self._source[name].format.name.upper() if found is None else found.dtype
            raise self.error(part, f"expected type {' or '.join(types)}, got {got}.")
        return found

    def matrix(self, part: str, *types: str) -> Stored:
        """A part of two dimensions, neither of them 0."""
        found = self.stored(part, *types)
        if len(found.shape) != 2 or 0 in found.shape:
            raise self.error(part, f"expected a matrix, got shape {found.shape}.")
        return found

    def expect(self, part: str, found: Stored | Tensor, shape: tuple[int, ...]) -> None:
        """InvalidFileError if a part has another shape."""
        if found.shape != shape:
            raise self.error(part, f"expected shape {shape}, got {found.shape}.")

    def floats(self, part: str) -> Tensor:
        """A part of F32, F16 or BF16."""
        self._require(part)
        name = f"{self.name}.{part}"
        if name in self._source.stored:
            dtype = self._source.stored[name].dtype
            raise self.error(part, f"expected type {' or '.join(FLOATS)}, got {dtype}.")
        return self._source[name]

    def tensor(self, shape: tuple[int, int], decode: Decode) -> Tensor:
        """The linear's weight as a tensor of float32 that `decode` makes when asked."""

        def data() -> Bytes:
            weights: Floats = decode()
            return np.ascontiguousarray(weights, dtype="<f4").view(np.uint8)

        return Tensor(f"{self.name}.weight", shape, get("f32"), data)

    def groups_of(self, part: str, numbers: NDArray[np.integer], groups: int) -> Groups:
        """The group of each column; InvalidFileError for one that is not there."""
        bad = (numbers < 0) | (numbers >= groups)
        if bad.any():
            at = int(bad.argmax())
            raise self.error(
                part, f"expected groups below {groups}, got {int(numbers[at])} for column {at}."
            )
        return numbers.astype(np.intp)

    def _require(self, part: str) -> None:
        if part not in self.parts:
            others = ", ".join(sorted(self.parts))
            raise self.error(part, f"missing; beside it are {others}.")


class Settings:
    """`quantization_config`, read strictly; errors name config.json and the key."""

    def __init__(self, values: Mapping[str, object], path: object) -> None:
        self.values = values
        self.path = path

    def integer(self, keys: tuple[str, ...], default: int | None = None) -> int:
        """The first of `keys` that is there; InvalidFileError for none, or no whole number."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise self.error(key, f"expected a whole number, got {value!r:.40}.")
            return value
        if default is None:
            raise self.error(keys[0], "missing.")
        return default

    def group_size(self, keys: tuple[str, ...]) -> int | None:
        """Columns of a group; None for -1, which is all of a row."""
        size = self.integer(keys)
        if size == -1:
            return None
        if size < 1:
            raise self.error(keys[0], f"expected -1 or a positive number, got {size}.")
        return size

    def text(self, key: str, default: str = "") -> str:
        """A word in lower case."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(key, f"expected a word, got {value!r:.40}.")
        return value.lower()

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {value!r:.40}.")
        return value

    def error(self, key: str, problem: str) -> InvalidFileError:
        """That a key is not what it should be."""
        return InvalidFileError(self.path, f"key 'quantization_config.{key}'", problem)

    def unsupported(self, what: str) -> UnsupportedError:
        """That the folder is legal, but not read."""
        return UnsupportedError(
            f"{self.path}: {what}\nTake another quantization of this model, or its original."
        )
