"""The batched network computes what the reference does, for every dense architecture."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("transformers", reason="it makes the tiny models (dev extra)")
sys.path.insert(0, str(Path(__file__).parents[1] / "archs"))

import torch
from tiny import ARCHS, LLAMA3, MIXTURES, YARN, Variant, tiny_model

from trit import archs
from trit.errors import UnsupportedError
from trit.files import checkpoint
from trit.reference import Reference
from trit.training import network as networks

TOKENS = 48  # longer than a window
DENSE = [name for name in ARCHS if name not in MIXTURES]
VARIANTS = {
    "llama": (Variant(tied=True, biases=True, head_dim=24, rope=LLAMA3), Variant(rope=YARN)),
    "mistral": (Variant(window=16),),
    "qwen2": (Variant(tied=True, window=16),),
    "qwen3": (Variant(biases=True),),
    "gemma2": (Variant(attention_scalar=24, soft_caps=(2.0, 3.0)),),
    "gemma3": (Variant(layers=7, soft_caps=(None, 3.0)),),
    "phi3": (Variant(window=16, tied=True),),
}
CASES = [(arch, each) for arch in DENSE for each in (Variant(), *VARIANTS.get(arch, ()))]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def label(value: object) -> str:
    return value if isinstance(value, str) else "plain" if value == Variant() else "variant"


@pytest.mark.parametrize(("arch", "variant"), CASES, ids=label)
def test_logits_and_gradients_are_those_of_the_reference(
    arch: str, variant: Variant, tmp_path: Path
) -> None:
    tokens = np.random.default_rng(0).integers(0, variant.vocab, (2, TOKENS))
    with checkpoint.open(tiny_model(arch, tmp_path, variant)) as model:
        plan = archs.plan(model, context=TOKENS)
        oracle = Reference(plan, model.tensors)
        names = [name for name in model.tensors if not name.startswith("rope_")]
        weights = {name: oracle.weight(name).clone().requires_grad_() for name in names}
        for name in names:
            oracle.weight(name).requires_grad_()
        weigh = torch.randn(2, TOKENS, variant.vocab, generator=torch.Generator().manual_seed(0))
        for checkpointing in (False, True):
            made = networks.Network(plan, weights, checkpointing=checkpointing)
            found = made.logits(torch.from_numpy(tokens))
            (found * weigh).sum().backward()
        expected = torch.stack([oracle.forward(row) for row in tokens])
        (expected * weigh).sum().backward()
    # Some hundreds of roundings in a row, none of which grows much.
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    for name in names:
        twice, once = weights[name].grad, oracle.weight(name).grad
        assert (twice / 2 - once).abs().max() <= 1e-3 * once.abs().max(), name


def test_sinks_take_their_share(tmp_path: Path) -> None:
    """No published dense model that trit reads has them; the plan does."""
    from dataclasses import replace

    with checkpoint.open(tiny_model("llama", tmp_path)) as model:
        plan = archs.plan(model, context=TOKENS)
        layers = tuple(
            replace(each, mixer=replace(each.mixer, sinks="sinks")) for each in plan.layers
        )
        plan = replace(plan, layers=layers)
        sinks = SimpleNamespace(decode=lambda: np.linspace(-1, 2, 4, dtype=np.float32))
        oracle = Reference(plan, dict(model.tensors) | {"sinks": sinks})
        weights = {name: oracle.weight(name) for name in [*model.tensors, "sinks"]}
        tokens = np.arange(TOKENS)
        with torch.no_grad():
            found = networks.Network(plan, weights).logits(torch.from_numpy(tokens)[None])[0]
            expected = oracle.forward(tokens)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_taps_see_q_k_and_v(tmp_path: Path) -> None:
    with checkpoint.open(tiny_model("qwen3", tmp_path)) as model:
        plan = archs.plan(model)
        oracle = Reference(plan, model.tensors)
        made = networks.Network(plan, {name: oracle.weight(name) for name in model.tensors})
    seen = []
    made.taps[1] = lambda name, each: seen.append((name, tuple(each.shape)))
    made.logits(torch.arange(8).view(2, 4))
    assert seen == [("q", (2, 4, 128)), ("k", (2, 4, 64)), ("v", (2, 4, 64))]


@pytest.mark.parametrize("arch", MIXTURES)
def test_experts_are_refused(arch: str, tmp_path: Path) -> None:
    with (
        checkpoint.open(tiny_model(arch, tmp_path)) as model,
        pytest.raises(UnsupportedError, match="mixture of experts"),
    ):
        networks.Network(archs.plan(model), {})
