"""Statistics of every architecture against what the reference multiplies each weight with.

With `exact` the engine differs from float arithmetic by a few units in the last place, and by the
float16 of its cache, which the reference then has too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference needs torch (dev extra)")
pytest.importorskip("transformers", reason="makes the models (dev extra)")
sys.path.insert(0, str(Path(__file__).parents[1] / "archs"))

from tiny import ARCHS, MIXTURES, Variant, tiny_model  # noqa: E402

from trit import archs, reference  # noqa: E402
from trit.calibrate import Inputs, walk  # noqa: E402
from trit.files import checkpoint  # noqa: E402
from trit.plan import Linear, MixtureOfExperts  # noqa: E402
from trit.reference import Reference  # noqa: E402

CHUNKS, CTX = 3, 40
BOUND = 1e-3  # of a tensor's largest sum; measured: 1.6e-4 at most

CASES = [(arch, Variant(experts=6, experts_used=2)) for arch in ARCHS] + [
    ("qwen2", Variant(biases=True, window=16)),
    ("qwen2moe", Variant(experts=24, experts_used=1)),  # some experts see no token
]


class Recorder(Reference):
    """Keeps the inputs of every weight, in float64: {name: {expert: [rows, …]}}."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        self.seen: dict[str, dict[int, list[np.ndarray]]] = {}

    def record(self, name: str, x: torch.Tensor, expert: int = 0) -> None:
        # Weights that view one matrix are multiplied with one input.
        rows = self.seen.setdefault(name, {}).setdefault(expert, [])
        if not rows or rows[-1] is not x:
            rows.append(x)

    def _linear(self, part: Linear, x: torch.Tensor) -> torch.Tensor:
        self.record(part.weight, x)
        return super()._linear(part, x)

    def _mix(self, part: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
        logits = x @ self.weight(part.router.weight).T
        order = torch.argsort(torch.softmax(logits, -1), dim=-1, descending=True, stable=True)
        chosen = order[:, : part.top_k]
        for expert in range(part.router.rows):
            rows = x[(chosen == expert).any(-1)]
            gate, up = (self.weight(each.weight)[expert] for each in (part.gate, part.up))
            inner = reference.activate(part.activation, rows @ gate.T) * (rows @ up.T)
            for name in (part.gate.weight, part.up.weight):
                self.record(name, rows, expert)
            self.record(part.down.weight, inner, expert)
        return super()._mix(part, x)


@pytest.mark.parametrize(("arch", "variant"), CASES, ids=lambda value: str(value)[:12])
def test_inputs_are_those_of_the_reference(arch: str, variant: Variant, tmp_path: Path) -> None:
    folder = tiny_model(arch, tmp_path, variant)
    tokens = np.random.default_rng(0).integers(0, variant.vocab, (CHUNKS, CTX)).astype(np.int32)
    found: dict[str, tuple[Inputs, int]] = {}
    with checkpoint.open(folder) as model:
        plan = archs.plan(model, context=CTX)
        oracle = Recorder(plan, model.tensors, half_cache=True)
        with torch.no_grad():
            for chunk in tokens:
                oracle.forward(chunk)
        for layer in walk(model, tokens, gram=True, exact=True):
            for inputs in layer.inputs:
                found |= {name: (inputs, layer.index) for name in inputs.names}
    del oracle.seen[plan.head.weight]
    assert set(found) == set(oracle.seen)
    for name, experts in oracle.seen.items():
        inputs, _ = found[name]
        assert len(inputs.sums) == len(inputs.counts) == max(experts) + 1
        assert inputs.gram is not None
        for expert, pieces in experts.items():
            x = torch.cat(pieces).numpy().astype(np.float64)
            assert inputs.counts[expert] == len(x)
            gram = x.T @ x
            largest = max(np.diag(gram).max(initial=0), 1e-30)
            assert np.abs(inputs.sums[expert] - np.diag(gram)).max() <= BOUND * largest, name
            assert np.abs(inputs.gram[expert] - gram).max() <= BOUND * largest, name
    some_unseen = any(inputs.unseen for inputs, _ in found.values())
    assert some_unseen == (variant.experts == 24 and arch in MIXTURES)
