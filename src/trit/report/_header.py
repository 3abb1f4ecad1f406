"""What a report reads off a file's header."""

from __future__ import annotations

from pathlib import Path

from trit.describe import describe
from trit.evaluate.card import Card
from trit.files import checkpoint
from trit.pictures.bits import grid
from trit.report._figures import Figures


def own_card(path: Path) -> Card | None:
    """The quality card that a file brings; None without one."""
    with checkpoint.open(path) as file:
        return describe(file).card


def described(path: Path, label: str) -> Figures:
    """What is read off the header; nothing is measured."""
    with checkpoint.open(path) as file:
        found, made = describe(file), grid(file.tensors.values())
    sizes = sorted(made.formats.values(), key=lambda cell: -cell.nbytes)
    return Figures(
        label=label,
        path=str(path),
        is_reference=False,
        architecture=str(found.architecture),
        parameters=found.parameters,
        bytes=found.tensor_bytes,
        bits_per_weight=found.bits_per_weight or 0.0,
        types=tuple(cell.format.upper() for cell in sizes),
        recipe=found.recipe,
        quality=None,
        rates=(),
        memory=None,
        busy=False,
        tasks=(),
        measured_at=(),
        grid=made,
    )
