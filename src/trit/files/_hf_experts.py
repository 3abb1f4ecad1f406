"""The experts of a Hugging Face folder, stacked as a GGUF has them.

A stack is made when its bytes are asked for, out of the mapped files, so converting a model holds
one of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from trit.archs import Place
from trit.errors import InvalidFileError
from trit.files._tensor import Bytes, Tensor


class Stacks:
    """Takes the tensors of experts in any order; `tensors` then gives the stacks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._single: dict[str, dict[int, Tensor]] = {}
        self._whole: dict[str, Tensor] = {}

    def add(self, place: Place, tensor: Tensor) -> None:
        """Note where a tensor belongs; InvalidFileError for a second one there, or its shape."""
        if place.index is None:
            self._split(place.stacks, tensor)
            return
        (name,) = place.stacks
        experts = self._single.setdefault(name, {})
        if place.index in experts or name in self._whole:
            raise self._error(tensor, f"a second one for '{name}'.")
        if len(tensor.shape) != 2:
            raise self._error(tensor, f"expected a matrix, got shape {tensor.shape}.")
        experts[place.index] = tensor

    def _split(self, names: tuple[str, ...], tensor: Tensor) -> None:
        """A tensor that holds all experts: its rows are those of as many stacks as there are."""
        if len(tensor.shape) != 3 or tensor.shape[1] % len(names):
            raise self._error(
                tensor, f"expected the rows of {len(names)} stacks, got shape {tensor.shape}."
            )
        experts, rows, cols = tensor.shape
        rows //= len(names)
        for i, name in enumerate(names):
            if name in self._single or name in self._whole:
                raise self._error(tensor, f"a second one for '{name}'.")
            part = slice(i * rows, (i + 1) * rows)
            self._whole[name] = Tensor(
                name, (experts, rows, cols), tensor.format, _rows(tensor, part)
            )

    def tensors(self) -> dict[str, Tensor]:
        """The stacks by GGUF name; InvalidFileError if an expert is missing or unlike the rest."""
        return self._whole | {
            name: self._stacked(name, self._single[name]) for name in self._single
        }

    def _stacked(self, name: str, experts: Mapping[int, Tensor]) -> Tensor:
        for index in range(len(experts)):
            if index not in experts:
                raise InvalidFileError(
                    self.folder,
                    f"tensor '{name}'",
                    f"expert {index} of {max(experts) + 1} is missing.",
                )
        parts = [experts[index] for index in range(len(experts))]
        first = parts[0]
        for part in parts:
            if part.shape != first.shape or part.format is not first.format:
                raise self._error(
                    part,
                    f"expected {first.format.name} {first.shape} like '{first.name}', "
                    f"got {part.format.name} {part.shape}.",
                )
        return Tensor(
            name,
            (len(parts), *first.shape),
            first.format,
            lambda: np.stack([part.data for part in parts]),
        )

    def _error(self, tensor: Tensor, problem: str) -> InvalidFileError:
        return InvalidFileError(self.folder, f"tensor '{tensor.name}'", problem)


def _rows(tensor: Tensor, part: slice) -> Callable[[], Bytes]:
    return lambda: np.ascontiguousarray(tensor.data[:, part])
