"""The tensors of a model as its plan takes them: each with the shape that the sizes ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trit.errors import InvalidFileError, UnsupportedError
from trit.plan import Linear, Norm, Stack

Shapes = Mapping[str, tuple[int, ...]]

# Tensors beside the plan that a file may carry: rope divisors (read into the plan), old converters'
# unused rotary tables, and planes that trit itself adds.
_BESIDE_THE_PLAN = ("rope_", "trit.")
_UNUSED_SUFFIXES = (".attn_rot_embd", ".attn_rot_embd.weight", ".rotary_emb.inv_freq")
_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")


class Tensors:
    """Makes the plan's parts, checking each shape and noting which tensors are used."""

    def __init__(self, path: object, shapes: Shapes) -> None:
        self.path = path
        self.shapes = shapes
        self.used: set[str] = set()

    def matrix(self, name: str, rows: int, cols: int) -> Linear:
        """The whole of a (rows, cols) matrix, with its bias if the file has one."""
        self._take(name, (rows, cols))
        return Linear(name, rows, cols, bias=self._bias(name, rows))

    def slices(self, name: str, parts: tuple[int, ...], cols: int) -> tuple[Linear, ...]:
        """Views of a fused matrix (sum of `parts`, cols), one per part, from the top."""
        self._take(name, (sum(parts), cols))
        if self._bias(name, sum(parts)) is not None:
            raise UnsupportedError(f"{self.path}: the bias of the fused '{name}' is not supported.")
        starts = [sum(parts[:i]) for i in range(len(parts))]
        return tuple(
            Linear(name, rows, cols, row_start=start)
            for rows, start in zip(parts, starts, strict=True)
        )

    def norm(self, name: str, size: int, eps: float) -> Norm:
        """An RMS norm over `size` values."""
        self._take(name, (size,))
        return Norm(name, eps)

    def stack(self, name: str, experts: int, rows: int, cols: int) -> Stack:
        """One (rows, cols) matrix per expert."""
        self._take(name, (experts, rows, cols))
        return Stack(name, experts, rows, cols)

    def row(self, name: str, cols: int) -> Linear:
        """A matrix of one row, stored as a vector or as (1, cols)."""
        self._take(name, (1, cols) if len(self.shapes.get(name, ())) == 2 else (cols,))
        return Linear(name, 1, cols)

    def check_all_used(self, layers: int) -> None:
        """Refuse a file with a tensor that the plan would ignore: its answers would be wrong."""
        for name in self.shapes:
            if name in self.used or name.startswith(_BESIDE_THE_PLAN):
                continue
            if name.endswith(_UNUSED_SUFFIXES):
                continue
            block = _BLOCK.match(name)
            if block and int(block[1]) >= layers:
                problem = f"expected layers up to {layers - 1}, for block_count is {layers}."
                raise InvalidFileError(self.path, f"tensor '{name}'", problem)
            raise UnsupportedError(
                f"{self.path}: tensor '{name}' is not part of this architecture as trit knows it."
            )

    def _bias(self, weight: str, rows: int) -> str | None:
        name = weight.removesuffix(".weight") + ".bias"
        if name not in self.shapes:
            return None
        self._take(name, (rows,))
        return name

    def _take(self, name: str, expected: tuple[int, ...]) -> None:
        if name not in self.shapes:
            raise InvalidFileError(
                self.path, f"tensor '{name}'", f"missing; expected shape {expected}."
            )
        if tuple(self.shapes[name]) != expected:
            raise InvalidFileError(
                self.path,
                f"tensor '{name}'",
                f"expected shape {expected}, got {tuple(self.shapes[name])}.",
            )
        self.used.add(name)
