"""A table of single neurons as TSV: a line for each."""

from __future__ import annotations

from pathlib import Path

from trit.files._whole import whole
from trit.neurons._firing import DEFINITIONS
from trit.neurons._measure import Neurons

FIGURES = ("mean", "rms", "max", "energy", "even_energy")


def write_each(result: Neurons, path: Path) -> None:
    """Write layer, neuron, its frequency by each definition, its magnitudes and its energy.

    The file is whole or absent; figures are those of `LayerNeurons`, six digits of them.
    """
    with whole(path) as file:
        file.write(_line("layer", "neuron", *DEFINITIONS, *FIGURES))
        for layer in result.layers:
            columns = [
                *(layer.frequency[name] for name in DEFINITIONS),
                layer.magnitude, layer.rms, layer.largest, layer.energy, layer.even_energy,
            ]  # fmt: skip
            for number, row in enumerate(zip(*columns, strict=True)):
                file.write(_line(layer.layer, number, *(f"{value:.6g}" for value in row)))


def _line(*cells: object) -> bytes:
    return ("\t".join(map(str, cells)) + "\n").encode()
