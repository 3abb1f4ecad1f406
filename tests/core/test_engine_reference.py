"""The engine against transformers and against the torch reference.

With F32 weights the engine differs from float arithmetic in one place: keys and values are cached
as fp16. How much that moves the logits depends on the model, so the reference runs twice: as it
is, and with its own keys and values rounded to fp16. The engine has to be within 1e-3 of the
largest logit of the first, and four times nearer to the second than the two are to each other;
measured, it is six to twenty times nearer, and what is left are values that round to the other
side because they differ in the last bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_models import (
    EXPERTS,
    MODELS,
    ODD_EXPERTS,
    TOKENS,
    Model,
    all_logits,
    made,
    random_tokens,
)
from small_plan import Parts, Tensors, small_plan

from trit import _core, reference
from trit.archs import linears
from trit.engine import Engine, Rows
from trit.plan import Attention, Linear, MixtureOfExperts, Plan, Rope

torch = pytest.importorskip("torch", reason="the reference needs torch (dev extra)")
sys.path.insert(0, str(Path(__file__).parents[1] / "archs"))

from tiny import ARCHS, LLAMA3, MIXTURES, YARN, Variant, tiny_model  # noqa: E402

from trit.reference import Reference  # noqa: E402

pytestmark = pytest.mark.unsanitized

Floats = NDArray[np.float32]

BOUND = 1e-3  # of the largest logit
CONTEXT = 320
FORMATS = [row["name"] for row in _core.formats()]
ROUNDED = [row["name"] for row in _core.formats() if row["integer"]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class HalfCached(Reference):
    """The reference with keys and values rounded to fp16, as the engine's cache holds them."""

    def _attend(self, part: Attention, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.value, turned = part.v, []

        def rotate(rope: Rope, heads: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            turned.append(reference.rotate_exactly(rope, heads, at))
            return turned[-1] if len(turned) == 1 else halves(turned[-1])  # queries, then keys

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "rotate_exactly", reference.rotate, raising=False)
            patch.setattr(reference, "rotate", rotate)
            return super()._attend(part, x, positions)

    def _linear(self, part: Linear, x: torch.Tensor) -> torch.Tensor:
        out = super()._linear(part, x)
        return halves(out) if part == self.value else out

    value: Linear | None = None


def halves(x: torch.Tensor) -> torch.Tensor:
    return x.half().to(x.dtype)


def reference_logits(
    plan: Plan, tensors: Tensors, tokens: list[int], kind: type[Reference] = Reference
) -> Floats:
    with torch.no_grad():
        return kind(plan, tensors).forward(tokens).numpy()


def assert_close(found: Floats, expected: Floats) -> None:
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    difference, largest = np.abs(found - expected).max(), np.abs(expected).max()
    assert difference <= BOUND * largest, f"{difference / largest:.2e} of the largest logit"


def assert_half_cached(found: Floats, expected: Floats, half_cached: Floats) -> None:
    """Nearer to the reference with an fp16 cache than that is to the one without, four times."""
    assert np.isfinite(found).all()
    left, moved = (np.square(x - half_cached).mean() ** 0.5 for x in (found, expected))
    assert left <= moved / 4, f"{left:.2e}; an fp16 cache moves {moved:.2e}"


def soften(model: torch.nn.Module) -> None:
    """Weights of spread 1 / √columns, which keeps the size of what passes through.

    At the 1.5 / √columns of the tiny models attention is so sharp that rounding keys and values to
    fp16 moves float32 logits by 3e-3 of the largest: a property of such models, not of an engine.
    """
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight *= 2 / 3


VARIANTS = [(arch, Variant(context=CONTEXT)) for arch in ARCHS] + [
    ("llama", Variant(context=CONTEXT, rope=LLAMA3, biases=True, head_dim=24, tied=True)),
    ("qwen2", Variant(context=CONTEXT, rope=YARN)),
    ("mistral", Variant(context=CONTEXT, window=100)),
    ("bitnet", Variant(context=CONTEXT, activation="silu", tied=True)),
]


@pytest.mark.parametrize(("arch", "variant"), VARIANTS, ids=lambda value: str(value)[:12])
def test_every_architecture_equals_transformers_and_the_reference(
    arch: str, variant: Variant, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle (dev extra)")
    from trit import archs
    from trit.files import checkpoint

    folder = tiny_model(arch, tmp_path, variant)
    vision = arch == "gemma3_vision"
    kind = "AutoModelForImageTextToText" if vision else "AutoModelForCausalLM"
    model = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    soften(model)
    model.save_pretrained(folder)
    tokens = random_tokens(variant.vocab)
    with torch.no_grad():
        expected = model.eval()(torch.tensor(tokens)[None]).logits[0].numpy()
    with checkpoint.open(folder) as file:
        plan = archs.plan(file, context=TOKENS)
        found = all_logits(Engine(plan, file.tensors, threads=2, ctx=CONTEXT), tokens)
        half_cached = reference_logits(plan, file.tensors, tokens, HalfCached)
    if arch in MIXTURES:  # between two experts about as good, the cache's rounding may decide
        assert_close(found, half_cached)
        rows = np.abs(found - expected).max(axis=1)
        assert np.median(rows) <= BOUND * np.abs(expected).max()
    else:
        assert_close(found, expected)
    assert_half_cached(found, expected, half_cached)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param)


def test_every_part_of_a_layer_equals_the_reference(model: Model) -> None:
    expected, half_cached = (
        reference_logits(model.plan, model.tensors, model.tokens, kind)
        for kind in (Reference, HalfCached)
    )
    found = model.logits
    assert_close(found, expected)
    assert_half_cached(found, expected, half_cached)


def test_several_sequences_in_one_batch(model: Model) -> None:
    """Rows of three sequences, of different lengths and mixed; only some rows answer."""
    lengths = {7: 130, 0: 90, 3: 20}
    texts = {s: random_tokens(model.plan.vocab_size, n, seed=s) for s, n in lengths.items()}
    order = [(s, p) for p in range(130) for s in lengths if p < lengths[s]]
    rows = Rows(
        np.array([texts[s][p] for s, p in order], np.int32),
        np.array([s for s, _ in order], np.int32),
        np.array([p for _, p in order], np.int64),
    )
    asked = [i for i in range(len(order)) if i % 3 == 0]
    engine = model.engine(batch=32)
    found = engine.forward(rows, asked)
    expected = {s: reference_logits(model.plan, model.tensors, t) for s, t in texts.items()}
    assert_close(found, np.stack([expected[order[i][0]][order[i][1]] for i in asked]))
    assert {s: engine.length(s) for s in (0, 3, 5, 7)} == {0: 90, 3: 20, 5: 0, 7: 130}


def test_taps_are_the_inputs_of_linears(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what the reference multiplies each weight with; and they change no result."""
    seen: dict[str, Floats] = {}
    linear = Reference._linear

    def spy(self: Reference, part: Linear, x: torch.Tensor) -> torch.Tensor:
        seen[part.weight] = x.detach().numpy()
        return linear(self, part, x)

    monkeypatch.setattr(Reference, "_linear", spy)
    reference_logits(model.plan, model.tensors, model.tokens)
    engine, rows = model.engine(), Rows.of(model.tokens)
    hidden = engine.embed(model.tokens)
    for index, layer in enumerate(model.plan.layers):
        names = [part.weight for part in linears(layer).values()]
        taps = engine.layer(index, hidden, rows, names)
        assert list(taps) == names
        for name in names:
            assert_close(taps[name], seen[name].reshape(TOKENS, -1))
    assert np.array_equal(hidden, model.engine().hidden(rows))


@pytest.mark.parametrize("parts", [EXPERTS, ODD_EXPERTS, replace(EXPERTS, formats=("q8_0",))])
@pytest.mark.parametrize("count", [1, 50])
def test_taps_of_experts(parts: Parts, count: int) -> None:
    """Which experts a row chose, and what each of them was given."""
    plan, tensors = small_plan(replace(parts, width=96, inner=128))
    engine, tokens = Engine(plan, tensors, threads=3), random_tokens(plan.vocab_size, count)
    hidden, rows = engine.embed(tokens), Rows.of(tokens)
    for index, layer in enumerate(plan.layers):
        part = layer.feed_forward
        assert isinstance(part, MixtureOfExperts)
        chosen = np.empty((count, part.top_k), np.int32)
        names = [part.router.weight, part.gate.weight, part.up.weight, part.down.weight]
        x, gate, up, down = engine.layer(index, hidden, rows, names, chosen).values()
        scores = x @ tensors[part.router.weight].decode().T
        if part.router.bias:
            scores += tensors[part.router.bias].decode()
        for row, own in enumerate(chosen):
            others = np.delete(scores[row], own)
            assert (np.diff(own) > 0).all() and own.min() >= 0
            assert others.max(initial=-np.inf) <= scores[row, own].min() + 0.01
        assert gate.shape == up.shape == (count, part.top_k, plan.width)
        assert (gate == x[:, None]).all() and (up == x[:, None]).all()
        weights = [tensors[stack.weight].decode()[chosen] for stack in (part.gate, part.up)]
        turned, plain = (torch.from_numpy(np.einsum("nkiw,nw->nki", w, x)) for w in weights)
        expected = (reference.activate(part.activation, turned) * plain).numpy()
        error = np.abs(down - expected).max()
        assert error <= (BOUND if parts.formats == ("f32",) else 0.03) * np.abs(expected).max()
    assert np.array_equal(hidden, Engine(plan, tensors).hidden(rows))


# Quantized weights.


def kld(expected: Floats, found: Floats) -> float:
    """Mean over rows of Σ p (ln p − ln q)."""
    p, q = (x.astype(np.float64) for x in (expected, found))
    p, q = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_runs(name: str) -> None:
    """Against the reference on the dequantized weights.

    Types multiplied in float differ by the cache alone. The others round activations to int8, in
    blocks of 32: an error of scale / √12 each, where scale = largest / 127 and the largest of 32 is
    about 2.5 times their root mean square, so 2.5 / (127 √12) of the input, and as much of the
    output. Seven products lie on the way through two layers and the head; their errors have no
    common sign and add as squares. A relative error r of logits whose variance is v changes the
    distribution by a KLD of about r² v / 2; four times that is allowed.
    """
    plan, tensors = small_plan(Parts(formats=(name,), window=40))
    tokens = random_tokens(plan.vocab_size, 100)
    expected = reference_logits(plan, tensors, tokens)
    found = all_logits(Engine(plan, tensors, threads=2), tokens)
    if name not in ROUNDED:
        half_cached = reference_logits(plan, tensors, tokens, HalfCached)
        assert_half_cached(found, expected, half_cached)
        return
    error = 2.5 / (127 * 12**0.5) * 7**0.5
    predicted = error**2 * expected.var(axis=1).mean() / 2
    measured = kld(expected, found)
    assert 0 < measured <= 4 * predicted, f"{measured:.2e}, predicted {predicted:.2e}"


def test_formats_may_be_mixed_in_one_layer() -> None:
    """Inputs shared by weights of kinds that want them arranged in different ways."""
    plan, tensors = small_plan(Parts(formats=("q6_k", "f16", "q8_0", "q4_k", "iq2_xs"), layers=3))
    tokens = random_tokens(plan.vocab_size, 40)
    expected = reference_logits(plan, tensors, tokens)
    found = all_logits(Engine(plan, tensors, threads=2), tokens)
    assert kld(expected, found) <= 1e-3 * expected.var(axis=1).mean()


def test_smollm2_equals_the_reference(zoo_model: Callable[[str], Path]) -> None:
    """A real model: its own quantized weights, the activations' rounding included."""
    from trit import archs
    from trit.files import checkpoint
    from trit.runtime.tokenizer import Tokenizer

    path = zoo_model("smollm2-135m-instruct")
    tokens = Tokenizer.from_gguf(path).encode(
        "The Sun is the star at the centre of the Solar System."
    )
    with checkpoint.open(path) as file:
        plan = archs.plan(file)
        expected = reference_logits(plan, file.tensors, tokens)
        found = all_logits(Engine(plan, file.tensors, threads=2, ctx=64), tokens)
    assert kld(expected, found) < 1e-2
