"""Dark neurons: what is counted equals what is computed by hand, one token and neuron at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import small_model
import text_model
import trit
from trit import archs, calibrate
from trit.engine import Engine, Rows
from trit.errors import UnsupportedError
from trit.files import checkpoint
from trit.neurons import DEFINITIONS, Neurons
from trit.neurons._measure import column_squares
from trit.neurons._tally import Tally, carriers

Floats = NDArray[np.float32]

CTX, CHUNKS = 48, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    return text_model.write(path, matrices="f32")


@pytest.fixture(scope="module")
def found(model: Path) -> Neurons:
    return trit.neurons(model, text_model.TEXT, ctx=CTX, chunks=CHUNKS, exact=True, threads=1)


def activations(model: Path, index: int) -> Floats:
    """The inputs of a layer's `ffn_down`, from the whole model at once, chunk after chunk."""
    with checkpoint.open(model) as file:
        tokens = calibrate.data(file, text_model.TEXT, CTX, CHUNKS).tokens
        engine = Engine(archs.plan(file), file.tensors, threads=1, ctx=CTX)
        parts = []
        for chunk in tokens:
            rows, hidden = Rows.of(chunk.tolist()), engine.embed(chunk.tolist())
            for layer in range(index):
                engine.layer(layer, hidden, rows)
            name = f"blk.{index}.ffn_down.weight"
            parts.append(engine.layer(index, hidden, rows, [name])[name])
            engine.remove()
        return np.concatenate(parts)


def by_hand(row: Floats) -> dict[str, list[bool]]:
    """Which of a token's neurons fire, in plain Python."""
    sizes = [abs(float(value)) for value in row]
    rms = math.sqrt(sum(size**2 for size in sizes) / len(sizes))
    codes: list[int] = []
    for start in range(0, len(sizes), 32):
        block = sizes[start : start + 32]
        codes += [round(127 * size / max(block)) if max(block) else 0 for size in block]
    return {
        "above_rms": [size > rms for size in sizes],
        "tenth_of_max": [size > max(sizes) / 10 for size in sizes],
        "tenth_of_rms": [size > rms / 10 for size in sizes],
        "hundredth_of_max": [size > max(sizes) / 100 for size in sizes],
        "hundredth_of_rms": [size > rms / 100 for size in sizes],
        "int8": [code != 0 for code in codes],
        "nonzero": [size > 0 for size in sizes],
    }


@pytest.mark.parametrize("index", [0, 1])
def test_every_figure_of_a_layer(model: Path, found: Neurons, index: int) -> None:
    a, layer = activations(model, index), found.layers[index]
    fired = [by_hand(row) for row in a]
    for name in DEFINITIONS:
        counts = np.sum([row[name] for row in fired], axis=0)
        # A value within float32's rounding of a threshold may fall on either side of it.
        assert np.abs(layer.frequency[name] * len(a) - counts).max() <= 1.001
        assert np.abs(layer.frequency[name] - counts / len(a)).mean() < 1e-3
    wide = a.astype(np.float64)
    np.testing.assert_allclose(layer.magnitude, np.abs(wide).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layer.rms, np.sqrt((wide**2).mean(axis=0)), rtol=1e-5)
    np.testing.assert_array_equal(layer.largest, np.abs(a).max(axis=0))
    with checkpoint.open(model) as file:
        down = file.tensors[f"blk.{index}.ffn_down.weight"].decode().astype(np.float64)
    energy = wide**2 * (down**2).sum(axis=0)
    even = energy / energy.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(layer.energy, energy.sum(axis=0) / energy.sum(), rtol=1e-4)
    np.testing.assert_allclose(layer.even_energy, even.mean(axis=0), rtol=1e-4)
    assert layer.darkest()[0] == even.sum(axis=0).argmin()
    for fraction in (0.5, 0.9, 0.99):
        needed = [int(np.searchsorted(np.cumsum(np.sort(row)[::-1]), fraction)) + 1 for row in even]
        assert layer.carry_token[fraction] == pytest.approx(np.mean(needed) / 512, abs=1e-4)


def test_the_energy_is_that_of_single_contributions(model: Path) -> None:
    """Σ over the outputs of (a_j · W[:, j])² of one token, against a_j² · ‖W[:, j]‖²."""
    a = activations(model, 0)[:1]
    with checkpoint.open(model) as file:
        tensor = file.tensors["blk.0.ffn_down.weight"]
        contributions = a[0].astype(np.float64) * tensor.decode()
        tally = Tally(0, column_squares(tensor))
    tally.add(a)
    expected = (contributions**2).sum(axis=0)
    np.testing.assert_allclose(tally.finish().energy, expected / expected.sum(), rtol=1e-4)


def test_carriers() -> None:
    energy = np.array([[1.0, 4, 3, 2], [0, 0, 0, 7], [0, 0, 0, 0], [5, 5, 5, 5]])
    assert carriers(energy, 0.5).tolist() == [2, 1, 0, 2]
    assert carriers(energy, 0.9).tolist() == [3, 1, 0, 4]


def test_dead_neurons_are_found(tmp_path: Path) -> None:
    """Rows of zeros never fire; what is dark by every definition is dark in the answer."""

    def silence(weights: dict[str, Floats]) -> None:
        for name in ("blk.0.ffn_gate.weight", "blk.1.ffn_gate.weight"):
            weights[name][: 7 * small_model.FEED_FORWARD // 8] = 0

    path = text_model.write(tmp_path / "model.gguf", change=silence)
    result = trit.neurons(path, text_model.TEXT, ctx=CTX, chunks=1, threads=1)
    assert result.rare("nonzero", 0.01) == result.rare("int8", 0.01) == 7 / 8
    assert '"80% rarely activate" is true for this model by ' in result.claim()
    assert "not 0 as float32" in result.claim()
    assert result.carry(1.0) <= 1 / 8 and result.carry_token(0.99) <= 1 / 8


def test_a_model_without_dark_neurons(found: Neurons) -> None:
    assert '"80% rarely activate" is false for this model by all 14' in found.claim()
    assert found.active("nonzero") == 1.0


def test_neither_threads_nor_pieces_change_a_bit(model: Path, found: Neurons) -> None:
    again = trit.neurons(model, text_model.TEXT, ctx=CTX, chunks=CHUNKS, exact=True, threads=3)
    alike = replace(again, seconds=found.seconds, threads=found.threads)
    assert alike.to_dict() == found.to_dict()
    for one, other in zip(found.layers, again.layers, strict=True):
        assert np.array_equal(one.even_energy, other.even_energy)
        assert all(np.array_equal(one.frequency[d], other.frequency[d]) for d in DEFINITIONS)


def test_larger_layers_weigh_more(found: Neurons) -> None:
    first, second = found.layers
    half = replace(
        second,
        frequency={name: values[:256] for name, values in second.frequency.items()},
        energy=second.energy[:256],
    )
    mixed = replace(found, layers=(first, half))
    expected = (2 * first.active("above_rms") + half.active("above_rms")) / 3
    assert mixed.active("above_rms") == pytest.approx(expected)


def test_a_mixture_is_refused(tmp_path: Path) -> None:
    path = small_model.write(
        tmp_path / "moe.gguf", small_model.mixture(), extra=small_model.MIXTURE_KEYS
    )
    with pytest.raises(UnsupportedError, match="a mixture of experts"):
        trit.neurons(path, text_model.TEXT, ctx=CTX)
