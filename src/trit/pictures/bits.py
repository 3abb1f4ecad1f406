"""Where the bits of a model went: its layers by its kinds of tensors, coloured by bits per weight.

What stands outside the layers (embedding, output) has rows of its own below them, and every row a
bar of its size, cut by format. Vectors (norms, biases) have no row: they are told of in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trit.formats import Format
from trit.pictures import INK, save, style

ON_LIGHT = "#111111"  # of the figures in light cells
FEW_LAYERS = 34  # so many are numbered one by one, and have room for figures
COLOURS = "viridis"  # even in lightness, for the colour-blind too
ENDS = (1.5, 9.0)  # bits of the two ends of the colours
FLOAT = "#e6e2d3"  # of more bits: floats
ORDER = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate_inp", "ffn_gate",
         "ffn_up", "ffn_down")  # fmt: skip


class TensorLike(Protocol):
    """What is read of a tensor; no weight is."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> Format: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class Cell:
    """A tensor: its format, bits per weight and bytes."""

    format: str
    bits: float
    nbytes: int


@dataclass(frozen=True)
class Grid:
    """Matrices by where they are.

    rows      by kind, such as attn_q: the tensor of each layer that has one
    others    tensors outside the layers, by name
    layers    how many there are
    vector_bytes   of all that is no matrix
    """

    rows: dict[str, dict[int, Cell]]
    others: dict[str, Cell]
    layers: int
    vector_bytes: int

    @property
    def formats(self) -> dict[str, Cell]:
        """Each format with its bits and the bytes in it, most bits first."""
        found: dict[str, Cell] = {}
        for cell in self.cells():
            known = found.get(cell.format, Cell(cell.format, cell.bits, 0))
            found[cell.format] = Cell(cell.format, cell.bits, known.nbytes + cell.nbytes)
        return dict(sorted(found.items(), key=lambda item: (-item[1].bits, item[0])))

    def cells(self) -> list[Cell]:
        """All matrices."""
        return [*(c for row in self.rows.values() for c in row.values()), *self.others.values()]


def grid(tensors: Iterable[TensorLike]) -> Grid:
    """Sort tensors by kind and layer, by their GGUF names."""
    rows: dict[str, dict[int, Cell]] = {}
    others: dict[str, Cell] = {}
    layers = vectors = 0
    for tensor in tensors:
        if len(tensor.shape) < 2:
            vectors += tensor.nbytes
            continue
        format = tensor.format
        cell = Cell(format.name, format.bits_per_weight, tensor.nbytes)
        found = re.fullmatch(r"blk\.(\d+)\.(.+?)(?:\.weight)?", tensor.name)
        if found is None:
            others[tensor.name.removesuffix(".weight")] = cell
        else:
            layer = int(found[1])
            layers = max(layers, layer + 1)
            rows.setdefault(found[2], {})[layer] = cell
    known = {name: place for place, name in enumerate(ORDER)}
    order = sorted(rows, key=lambda kind: (known.get(_dense(kind), len(known)), kind))
    return Grid({kind: rows[kind] for kind in order}, others, layers, vectors)


def _dense(kind: str) -> str:
    """ffn_up_exps and ffn_up_shexp stand beside ffn_up."""
    return re.sub(r"_(exps|shexp)$", "", kind)


def draw(tensors: Iterable[TensorLike], path: Path, title: str) -> None:
    """Write the picture as .svg or .png; errors of `pictures.check` come before."""
    save(figure(grid(tensors), title), path)


def figure(found: Grid, title: str) -> Any:
    """The picture."""
    with style():
        return _figure(found, title)


def _figure(found: Grid, title: str) -> Any:
    from matplotlib.figure import Figure

    names = [*found.rows, *found.others]
    drawn = Figure(figsize=(10, 1.9 + 0.3 * len(names)), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(3.4, 1))
    _layers(left, found)
    _sizes(right, found)
    left.set_yticks(range(len(names)), names, family="monospace", fontsize=9)
    left.set_ylim(len(names) - 0.4, -0.6)
    drawn.suptitle(title, fontsize=12, fontweight="bold")
    _legend(drawn, found)
    return drawn


def colour(bits: float) -> Any:
    """Of a number of bits per weight: darker is fewer; of floats one beside the scale."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    if bits > ENDS[1]:
        return to_rgba(FLOAT)
    return colormaps[COLOURS]((max(bits, ENDS[0]) - ENDS[0]) / (ENDS[1] - ENDS[0]))


def _layers(axes: Any, found: Grid) -> None:
    for y, row in enumerate(found.rows.values()):
        for layer, cell in row.items():
            _box(axes, layer - 0.5, y, 1, cell)
            if found.layers <= FEW_LAYERS:
                axes.text(
                    layer, y, f"{cell.bits:.2g}", ha="center", va="center", fontsize=6,
                    color=_ink_on(cell.bits),
                )  # fmt: skip
    width = max(found.layers, 1)
    for y, cell in enumerate(found.others.values(), len(found.rows)):
        _box(axes, -0.5, y, width, cell)
        axes.text(
            width / 2 - 0.5, y, f"{cell.format.upper()}, {cell.bits:.3g} bits", ha="center",
            va="center", fontsize=8, color=_ink_on(cell.bits),
        )  # fmt: skip
    if found.rows and found.others:
        axes.axhline(len(found.rows) - 0.5, color=INK, linewidth=0.8)
    step = next(n for n in (1, 2, 5, 10, 20, 50) if width <= n * FEW_LAYERS)
    axes.set(xlabel="layer", xlim=(-0.6, width - 0.4), xticks=range(0, found.layers, step))
    axes.tick_params(length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _box(axes: Any, x: float, y: int, width: float, cell: Cell) -> None:
    from matplotlib.patches import Rectangle

    edge = "white" if width == 1 else "none"  # as wide on every screen, however many layers
    axes.add_patch(
        Rectangle((x, y - 0.44), width, 0.88, facecolor=colour(cell.bits), edgecolor=edge, lw=0.5)
    )


def _ink_on(bits: float) -> str:
    red, green, blue, _ = colour(bits)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else ON_LIGHT


def _sizes(axes: Any, found: Grid) -> None:
    parts = [list(row.values()) for row in found.rows.values()]
    parts += [[cell] for cell in found.others.values()]
    largest = max((sum(cell.nbytes for cell in row) for row in parts), default=1)
    unit, name_of_unit = (2**30, "GiB") if largest >= 2**30 else (2**20, "MiB")
    for y, row in enumerate(parts):
        left = 0.0
        for name, cell in found.formats.items():
            size = sum(each.nbytes for each in row if each.format == name) / unit
            axes.barh(y, size, left=left, height=0.7, color=colour(cell.bits))
            left += size
        axes.text(left + 0.02 * largest / unit, y, f"{left:.3g}", va="center", fontsize=8)
    axes.set(xlabel=name_of_unit, xlim=(0, 1.2 * largest / unit))
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(drawn: Any, found: Grid) -> None:
    from matplotlib.patches import Patch

    total = sum(cell.nbytes for cell in found.cells()) or 1
    handles = [
        Patch(
            color=colour(cell.bits),
            label=f"{name.upper()}  {cell.bits:.4g} bits, {_share(cell.nbytes / total)} of bytes",
        )
        for name, cell in found.formats.items()
    ]
    drawn.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=8,
        frameon=False, title=f"vectors, in no row: {found.vector_bytes / 1024:.0f} KiB",
        title_fontsize=8,
    )  # fmt: skip


def _share(part: float) -> str:
    return "<1%" if 0 < part < 0.005 else f"{100 * part:.0f}%"
