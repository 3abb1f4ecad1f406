"""Factors of channels: they lower the error of the output, and folding them changes no output."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from trit.export._balance import Balance
from trit.quantizers import awq, rtn

pytestmark = pytest.mark.unsanitized


def salient(tokens: int, cols: int, seed: int = 0) -> np.ndarray:
    """Inputs of which some channels carry most."""
    random = np.random.default_rng(seed)
    scale = np.where(np.arange(cols) % 29 == 3, 30.0, 1.0)
    return (random.standard_normal((tokens, cols)) * scale).astype(np.float32)


def test_factors_lower_the_error_and_raise_the_loud_channels() -> None:
    weights = np.random.default_rng(1).standard_normal((96, 128)).astype(np.float32)
    inputs = salient(200, 128)
    found = awq.scaling([weights[:64], weights[64:]], inputs, 3, 64)
    assert found.error < 0.9
    loud = np.arange(128) % 29 == 3
    assert found.factors[loud].min() > found.factors[~loud].max()
    exact = weights @ inputs.T
    scaled = rtn.quantize_groups(weights * found.factors, 3, 64).weights() / found.factors
    plain = rtn.quantize_groups(weights, 3, 64).weights()
    errors = [float(np.square(x @ inputs.T - exact).sum()) for x in (scaled, plain)]
    assert errors[0] < errors[1]


def test_no_scaling_where_nothing_is_gained() -> None:
    weights = np.sign(np.random.default_rng(2).standard_normal((32, 64))).astype(np.float32)
    found = awq.scaling([weights], salient(64, 64), 4, 32)
    assert found.error <= 1 and found.factors.min() > 0


def test_groups_are_searched_on_the_output() -> None:
    weights = np.random.default_rng(3).standard_normal((64, 128)).astype(np.float32)
    inputs = salient(300, 128, 4)
    inputs[:, 1:64] += inputs[:, :63] * 0.7  # neighbours that go together
    grid = awq.quantize_groups(weights, 3, awq.grams(inputs, 64))
    by_column = rtn.quantize_groups(weights, 3, 64, np.square(inputs).mean(axis=0))

    def error(values: np.ndarray) -> float:
        parts = (values - weights).reshape(64, 2, 64)
        out = np.einsum("rgc,tgc->rgt", parts, inputs.reshape(300, 2, 64))
        return float(np.square(out).sum())

    assert error(grid.weights()) < error(by_column.weights())
    assert grid.codes.max() <= 7


def test_channels_that_never_fire() -> None:
    weights = np.random.default_rng(5).standard_normal((16, 64)).astype(np.float32)
    inputs = salient(50, 64)
    inputs[:, 32:] = 0
    found = awq.scaling([weights], inputs, 4, 32)
    assert np.isfinite(found.factors).all() and found.factors.min() > 0
    grid = awq.quantize_groups(weights, 4, awq.grams(inputs, 32))
    assert np.abs(grid.weights() - weights).max() < 0.5


def test_folds() -> None:
    two = np.array([2.0, 4.0], np.float32)
    found = Balance(columns={"a.weight": two}, rows={"b.weight": two}, norms={"n.weight": two})
    ones, none = np.ones((2, 2), np.float32), np.zeros(0)
    assert found.fold("a.weight", ones, none).tolist() == [[2, 4], [2, 4]]
    assert found.fold("b.weight", ones, none).tolist() == [[0.5, 0.5], [0.25, 0.25]]
    assert found.fold("b.bias", ones[0], none).tolist() == [0.5, 0.25]
    assert found.fold("n.weight", np.zeros(2, np.float32), np.ones(2)).tolist() == [-0.5, -0.75]
    assert found.fold("c.weight", ones, none).tolist() == ones.tolist()


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2", "phi3"])
def test_a_model_with_factors_computes_what_it_did(arch: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the tiny models need torch (dev extra)")
    pytest.importorskip("transformers", reason="makes the tiny models (dev extra)")
    sys.path.insert(0, str(Path(__file__).parents[1] / "archs"))
    from tiny import Variant, tiny_model

    from trit import archs
    from trit.export import export
    from trit.files import checkpoint
    from trit.reference import Reference

    heads = 4 if arch == "llama" else 2  # as many of values as of queries: v is folded too
    given = Variant(tokenizer=True, kv_heads=heads, vocab=320)
    model, out = tiny_model(arch, tmp_path / "model", given), tmp_path / "out"
    text = tmp_path / "text.txt"
    text.write_text("The rain in Spain falls mainly on the plain. " * 40)
    result = export(
        model, out, "compressed-tensors", bits=8, group_size=32, quantizer="awq", calibration=text
    )
    assert result.salient is not None and 0 < result.salient < 1
    assert result.weighted == result.linears
    logits = []
    for folder in (model, out):
        with checkpoint.open(folder) as opened, torch.no_grad():
            logits.append(
                Reference(archs.plan(opened), opened.tensors).forward(list(range(3, 60))).numpy()
            )
    with checkpoint.open(model) as before, checkpoint.open(out) as after:
        changed = before.tensors["blk.0.attn_norm.weight"].decode()
        assert not np.array_equal(changed, after.tensors["blk.0.attn_norm.weight"].decode())
    # Eight bits lose little; a factor folded wrongly would change everything.
    assert np.corrcoef(logits[0].ravel(), logits[1].ravel())[0, 1] > 0.999
