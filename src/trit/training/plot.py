"""The curves of a run as a picture: loss of every step, what was measured on the text held out."""

from __future__ import annotations

from pathlib import Path

from trit.files._whole import whole
from trit.training import log as logs

FILE = "plot.svg"
MEASURES = {"bits_per_byte": "bits per byte", "kld": "KLD, nats per token"}
SMOOTHING = 0.95  # of the running mean drawn over the losses


def draw(folder: Path, measure: str = "bits_per_byte") -> Path | None:
    """Draw a folder's diary; the picture's path, None without matplotlib (extra `plot`).

    measure: what was measured, by its name in the diary.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    entries = logs.read(folder)
    steps = [entry for entry in entries if entry["event"] == "step"]
    measured = [entry for entry in entries if entry["event"] == "held_out"]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    at = [entry["step"] for entry in steps]
    losses = [entry["loss"] for entry in steps]
    left.plot(at, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    left.plot(at, _smooth(losses), color="tab:blue", label="loss, smoothed")
    right.plot(
        [entry["step"] for entry in measured],
        [entry[measure] for entry in measured],
        color="tab:red", marker="o", label="held out",
    )  # fmt: skip
    turn = next((entry["step"] for entry in steps if entry.get("ternary")), None)
    if turn is not None and turn > 1:
        left.axvline(turn, color="grey", linestyle=":", label="ternary from here")
    left.set(xlabel="step", ylabel="nats per token", title=folder.name)
    right.set(ylabel=MEASURES[measure])
    figure.legend(loc="outside lower center", ncols=3)
    with whole(folder / FILE) as file:
        figure.savefig(file, format="svg")
    return folder / FILE


def _smooth(values: list[float]) -> list[float]:
    """The running mean, each value weighing less than the next, without a bias at the start."""
    found, total, weight = [], 0.0, 0.0
    for value in values:
        total = SMOOTHING * total + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        found.append(total / weight)
    return found
