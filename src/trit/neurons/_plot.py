"""The measured curves as a picture: how often neurons fire, and how few carry the energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trit.neurons._firing import DEFINITIONS
from trit.neurons._measure import CLAIM, Neurons
from trit.neurons._tally import FRACTIONS, Doubles
from trit.pictures import check, save

POINTS = 25  # of a curve
RARELY = 0.1  # of the tokens, drawn with the claim
SHOWN = ("above_rms", "tenth_of_max", "tenth_of_rms", "int8")


def draw(result: Neurons, path: Path) -> None:
    """Write the picture, which is whole or absent, as .svg or .png.

    UsageError for another kind, UnsupportedError without matplotlib (extra `plot`).
    """
    check(path, "--plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _frequencies(left, result)
    _energies(right, result)
    figure.suptitle(f"{Path(result.model).stem}: {result.tokens:,} tokens")
    save(figure, path)


def _frequencies(axes: Any, result: Neurons) -> None:
    """For each definition: the share of neurons that fire for at most so many of the tokens."""
    at = np.logspace(-3, 0, POINTS)
    for name in SHOWN:
        every = np.sort(np.concatenate([layer.frequency[name] for layer in result.layers]))
        share = np.searchsorted(every, at, side="right") / len(every)
        axes.plot(at, share, label=DEFINITIONS[name])
    axes.plot([RARELY], [CLAIM], "k*", markersize=11, label="the claim: 80%, rarely")
    axes.set(
        xscale="log", xlabel="fires for at most this share of the tokens",
        ylabel="share of the neurons", ylim=(0, 1.02), title="How often neurons fire",
    )  # fmt: skip
    _legend(axes)


def _energies(axes: Any, result: Neurons) -> None:
    """For each layer: the share of the energy that the strongest neurons carry."""
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0, 0.95, len(result.layers)))
    for layer, colour in zip(result.layers, colours, strict=True):
        axes.plot(*_carried(layer.even_energy), color=colour, linewidth=0.8)
    first, last = result.layers[0].layer, result.layers[-1].layer
    axes.plot([], [], color=colours[0], label=f"layer {first}")
    axes.plot([], [], color=colours[-1], label=f"layer {last}")
    axes.plot(
        [result.carry_token(fraction) for fraction in FRACTIONS], FRACTIONS, "r.",
        label="of a single token, its own strongest",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "k:", linewidth=0.8, label="all alike")
    axes.set(
        xlabel="share of the neurons, strongest first", ylabel="share of the energy",
        xlim=(0, 1), ylim=(0, 1.02), title="How few carry the output, every token alike",
    )  # fmt: skip
    _legend(axes)


def _legend(axes: Any) -> None:
    """Below the axis, where it hides no curve."""
    axes.legend(
        fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False
    )


def _carried(energy: Doubles) -> tuple[Doubles, Doubles]:
    """Points of a curve: share of the neurons, share of the energy."""
    sums = np.concatenate([[0.0], np.cumsum(np.sort(energy)[::-1])])
    at = np.unique((len(energy) * np.linspace(0, 1, POINTS) ** 2).astype(int))  # steep at first
    return at / len(energy), sums[at]
