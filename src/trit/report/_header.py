"""What a report reads off a file's header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trit import archs
from trit.evaluate import card
from trit.files import checkpoint
from trit.pictures.bits import grid
from trit.report._figures import Figures


def own_card(path: Path) -> card.Card | None:
    """The quality card that a file brings; None without one."""
    with checkpoint.open(path) as file:
        return card.read(file.metadata, list(file.tensors))


def described(path: Path, label: str) -> Figures:
    """What is read off the header; nothing is measured."""
    with checkpoint.open(path) as file:
        keys: Any = file.metadata
        tensors = list(file.tensors.values())
        made = grid(tensors)
        size = sum(tensor.nbytes for tensor in tensors)
        sizes = sorted(made.formats.values(), key=lambda cell: -cell.nbytes)
        recipe = keys.get("trit.recipe")
        return Figures(
            label=label,
            path=str(path),
            is_reference=False,
            architecture=str(keys.get("general.architecture")),
            parameters=archs.parameter_count(file),
            bytes=size,
            bits_per_weight=8 * size / sum(tensor.rows * tensor.cols for tensor in tensors),
            types=tuple(cell.format.upper() for cell in sizes),
            recipe=recipe if isinstance(recipe, str) else None,
            quality=None,
            rates=(),
            memory=None,
            busy=False,
            tasks=(),
            measured_at=(),
            grid=made,
        )
