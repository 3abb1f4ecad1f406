"""A table of single neurons as TSV: a line for each."""

from __future__ import annotations

from pathlib import Path

from trit.neurons._firing import DEFINITIONS
from trit.neurons._measure import Neurons

FIGURES = ("mean", "rms", "max", "energy", "even_energy")


def write_each(result: Neurons, path: Path) -> None:
    """Write layer, neuron, its frequency by each definition, its magnitudes and its energy.

    The file is whole or absent; figures are those of `LayerNeurons`, six digits of them.
    """
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        print("layer", "neuron", *DEFINITIONS, *FIGURES, sep="\t", file=file)
        for layer in result.layers:
            columns = [
                *(layer.frequency[name] for name in DEFINITIONS),
                layer.magnitude, layer.rms, layer.largest, layer.energy, layer.even_energy,
            ]  # fmt: skip
            for number, row in enumerate(zip(*columns, strict=True)):
                figures = (f"{value:.6g}" for value in row)
                print(layer.layer, number, *figures, sep="\t", file=file)
    partial.replace(path)
