"""The engine against transformers and against the torch reference, and its promises on errors.

With F32 weights the engine differs from float arithmetic in one place: keys and values are cached
as fp16. How much that moves the logits depends on the model, so the reference runs twice: as it
is, and with its own keys and values rounded to fp16. The engine has to be within 1e-3 of the
largest logit of the first, and four times nearer to the second than the two are to each other;
measured, it is six to twenty times nearer, and what is left are values that round to the other
side because they differ in the last bit.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, Tensors, head_only, matrix, small_plan, vector

from trit import _core, reference
from trit.archs import linears
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, TritError, UnsupportedError, UsageError
from trit.files.gguf import Tensor
from trit.plan import Attention, Linear, MixtureOfExperts, Plan, Rope, Stack

torch = pytest.importorskip("torch", reason="the reference needs torch (dev extra)")
sys.path.insert(0, str(Path(__file__).parents[1] / "archs"))

from tiny import ARCHS, LLAMA3, MIXTURES, YARN, Variant, tiny_model  # noqa: E402

from trit.reference import Reference  # noqa: E402

Floats = NDArray[np.float32]

BOUND = 1e-3  # of the largest logit
TOKENS = 300  # above one pass of 256 rows, four pages of 64 positions, and every window
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


def random_tokens(vocab: int, count: int = TOKENS, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab, count).tolist()


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


def all_logits(engine: Engine, tokens: list[int], start: int = 0, sequence: int = 0) -> Floats:
    return engine.forward(Rows.of(tokens, start, sequence), range(len(tokens)))


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


# Small plans: what needs no checkpoint.

PLAIN = Parts(formats=("f32",), window=40)
# Heads of 24 in pages padded to 32, three query heads per key head, odd sizes, and every extra.
ODD = Parts(
    formats=("f32",), width=72, inner=52, heads=6, kv_heads=2, head_dim=24, vocab=37, layers=3,
    window=70, extras=True,
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    plan: Plan
    tensors: Tensors
    tokens: list[int]

    def engine(self, threads: int = 2, batch: int = 256, ctx: int | None = None) -> Engine:
        return Engine(self.plan, self.tensors, threads=threads, batch=batch, ctx=ctx)


EXPERTS = Parts(formats=("f32",), inner=104, experts=5, top_k=2, vocab=90)
ODD_EXPERTS = replace(ODD, experts=11, top_k=11)


@pytest.fixture(
    scope="module",
    params=[PLAIN, ODD, EXPERTS, ODD_EXPERTS],
    ids=["plain", "odd", "experts", "odd experts"],
)
def model(request: pytest.FixtureRequest) -> Model:
    plan, tensors = small_plan(request.param)
    return Model(plan, tensors, random_tokens(plan.vocab_size))


def test_every_part_of_a_layer_equals_the_reference(model: Model) -> None:
    expected, half_cached = (
        reference_logits(model.plan, model.tensors, model.tokens, kind)
        for kind in (Reference, HalfCached)
    )
    found = all_logits(model.engine(), model.tokens)
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


def test_the_last_row_is_the_default_and_hidden_feeds_the_head(model: Model) -> None:
    engine = model.engine()
    every = all_logits(engine, model.tokens)
    assert np.array_equal(model.engine().forward(Rows.of(model.tokens)), every[-1:])
    hidden = model.engine().hidden(Rows.of(model.tokens))
    assert hidden.shape == (TOKENS, model.plan.width)
    assert np.array_equal(engine.head(hidden), every)
    few = model.engine().hidden(Rows.of(model.tokens), [3, 299])
    assert np.array_equal(few, hidden[[3, 299]])


def test_layer_by_layer_is_the_whole_pass(model: Model) -> None:
    """Layer-major: all the text through one layer, in two pieces, then the next."""
    engine = model.engine()
    hidden = engine.embed(model.tokens)
    cut = 123
    rows = [Rows.of(model.tokens[:cut]), Rows.of(model.tokens[cut:], cut)]
    for index in range(len(model.plan.layers)):
        for part, at in zip(rows, (slice(0, cut), slice(cut, None)), strict=True):
            piece = hidden[at].copy()
            assert engine.layer(index, piece, part) == {}
            hidden[at] = piece
    assert np.array_equal(hidden, model.engine().hidden(Rows.of(model.tokens)))
    assert np.array_equal(engine.head(hidden), all_logits(model.engine(), model.tokens))


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


def test_no_rows_choose_no_experts() -> None:
    plan, tensors = small_plan(EXPERTS)
    empty = np.empty((0, plan.width), np.float32)
    assert Engine(plan, tensors).layer(0, empty, Rows.of([])) == {}


def test_taps_of_experts_that_do_not_fit() -> None:
    plan, tensors = small_plan(EXPERTS)
    engine, rows = Engine(plan, tensors), Rows.of([1, 2])
    for shape in ((2, 3), (1, 2)):
        with pytest.raises(UsageError, match="shape of the experts"):
            engine.layer(0, engine.embed([1, 2]), rows, experts=np.empty(shape, np.int32))
    dense, tensors = small_plan(PLAIN)
    engine = Engine(dense, tensors)
    with pytest.raises(UsageError, match="no experts"):
        engine.layer(0, engine.embed([1, 2]), rows, experts=np.empty((2, 2), np.int32))


@pytest.mark.parametrize("poison", [np.nan, np.inf, 0.0])
def test_a_router_without_an_opinion(poison: float) -> None:
    """Equals choose the first experts; what is not a number still chooses experts there are."""
    plan, tensors = small_plan(EXPERTS)
    router = plan.layers[0].feed_forward.router
    values = np.full((EXPERTS.experts, EXPERTS.width), poison, np.float32)
    tensors[router.weight] = Tensor(
        router.weight, values.shape, tensors[router.weight].format, values.view(np.uint8)
    )
    engine, rows = Engine(plan, tensors), Rows.of([1, 2, 3])
    chosen = np.empty((3, EXPERTS.top_k), np.int32)
    engine.layer(0, engine.embed([1, 2, 3]), rows, experts=chosen)
    assert chosen.tolist() == [[0, 1]] * 3


def test_removing_and_going_on_is_a_fresh_run(model: Model) -> None:
    engine = model.engine()
    all_logits(engine, random_tokens(model.plan.vocab_size, seed=1))
    all_logits(engine, random_tokens(model.plan.vocab_size, 70, seed=2), sequence=1)
    for keep in (0, 1, 64, 100):
        prefix = model.tokens[:keep]
        engine.remove(0, 0)
        assert engine.length(0) == 0
        if keep:
            engine.forward(Rows.of(prefix))
        engine.forward(Rows.of(random_tokens(model.plan.vocab_size, 150, seed=3), keep))
        engine.remove(0, keep)
        assert engine.length(0) == keep
        found = all_logits(engine, model.tokens[keep:], keep)
        assert np.array_equal(found, all_logits(model.engine(), model.tokens)[keep:]), keep
    assert engine.length(1) == 70


def test_pages_of_removed_positions_are_used_again(model: Model) -> None:
    engine = model.engine()
    assert engine.cache_bytes() == 0
    engine.forward(Rows.of(model.tokens))
    full = engine.cache_bytes()
    assert full > 0
    engine.remove(0, 10)
    engine.forward(Rows.of(model.tokens[:200], sequence=2))
    assert engine.cache_bytes() == full
    engine.remove(5)  # of no sequence: nothing happens


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


# Errors.


@pytest.fixture
def engine() -> Engine:
    plan, tensors = small_plan(replace(PLAIN, layers=1))
    return Engine(plan, tensors, threads=2, ctx=100, batch=32)


def refused(engine: Engine, rows: Rows, error: type[TritError], text: str) -> None:
    """The rows raise the error, and the engine goes on as if they had never come."""
    before = [engine.length(s) for s in range(4)]
    with pytest.raises(error, match=text):
        engine.forward(rows)
    assert [engine.length(s) for s in range(4)] == before
    engine.remove(0)
    fresh = all_logits(engine, [1, 2, 3])
    engine.remove(0)
    assert np.array_equal(fresh, all_logits(engine, [1, 2, 3]))


def test_a_position_beyond_the_context(engine: Engine) -> None:
    assert engine.ctx == 100
    engine.forward(Rows.of([1] * 100))
    refused(engine, Rows.of([1], 100), DoesNotFitError, "position 100 is beyond the context of 100")


def test_a_prompt_beyond_the_context_leaves_nothing_behind(engine: Engine) -> None:
    refused(engine, Rows.of([1] * 101), DoesNotFitError, "context of 100.*--ctx-size")


def test_a_negative_position(engine: Engine) -> None:
    refused(engine, Rows.of([1], -1), DoesNotFitError, "position -1")


def test_a_hole(engine: Engine) -> None:
    engine.forward(Rows.of([1, 2, 3]))
    refused(engine, Rows.of([1], 4), DoesNotFitError, "position 4 of sequence 0 leaves a hole")
    rows = Rows.of([1, 2, 3, 4], 3, 1)
    refused(engine, rows, DoesNotFitError, "position 3 of sequence 1 leaves a hole")


@pytest.mark.parametrize("positions", [(0, 1, 1), (0, 2, 1), (1, 0)])
def test_rows_of_a_sequence_out_of_order(engine: Engine, positions: tuple[int, ...]) -> None:
    """What such rows see would depend on how the batch is cut, or on which thread comes last."""
    n = len(positions)
    engine.forward(Rows.of([5, 6, 7, 8]))
    rows = Rows(np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.array(positions))
    refused(engine, rows, TritError, "position")


@pytest.mark.parametrize("token", [-1, 150, 2**31 - 1])
def test_a_token_outside_the_vocabulary(engine: Engine, token: int) -> None:
    refused(engine, Rows.of([1, token]), UsageError, f"token {token} is outside the vocabulary")
    with pytest.raises(UsageError, match="outside the vocabulary"):
        engine.embed([token])


def test_rows_and_outputs_that_do_not_match(engine: Engine) -> None:
    rows = Rows.of([1, 2, 3])
    refused(engine, replace(rows, positions=rows.positions[:2]), UsageError, "one .* per row")
    refused(engine, replace(rows, tokens=rows.tokens[:2]), UsageError, "one token per row")
    for outputs in ([3], [-1], [1, 0], [1, 1]):
        with pytest.raises(UsageError, match="outputs are rows of the batch, ascending"):
            engine.forward(rows, outputs)
    assert engine.forward(rows, []).shape == (0, 150)


def test_layers_and_shapes_that_are_not_there(engine: Engine) -> None:
    rows, hidden = Rows.of([1, 2, 3]), engine.embed([1, 2, 3])
    for index in (-1, 1):
        with pytest.raises(UsageError, match="layer index"):
            engine.layer(index, hidden, rows)
    with pytest.raises(UsageError, match="shape of hidden"):
        engine.layer(0, hidden[:2], rows)
    with pytest.raises(UsageError, match="shapes of hidden and logits"):
        engine.head(hidden[:, :-1])


def fused(bias: int) -> tuple[Plan, Tensors]:
    """One layer whose keys and values are slices of a matrix with a bias of so many entries."""
    plan, tensors = small_plan(replace(PLAIN, layers=1))
    mixer = plan.layers[0].mixer
    assert isinstance(mixer, Attention)
    rows, cols = mixer.k.rows, mixer.k.cols
    tensors["kv"] = matrix("kv", "f32", 2 * rows, cols, seed=7)
    tensors["kv.bias"] = vector("kv.bias", np.random.default_rng(7).standard_normal(bias))
    k, v = (Linear("kv", rows, cols, "kv.bias", start) for start in (0, rows))
    layer = replace(plan.layers[0], mixer=replace(mixer, k=k, v=v))
    return replace(plan, layers=(layer,)), tensors


def test_a_slice_of_a_fused_matrix_takes_its_part_of_the_bias() -> None:
    plan, tensors = fused(bias=256)
    tokens = random_tokens(plan.vocab_size)
    found = all_logits(Engine(plan, tensors, threads=1), tokens)
    assert_close(found, reference_logits(plan, tensors, tokens))


@pytest.mark.parametrize("entries", [0, 1, 128, 255, 257])
def test_a_bias_of_another_length_than_its_matrix(entries: int) -> None:
    plan, tensors = fused(entries)
    with pytest.raises(UnsupportedError, match=f"'kv.bias': expected .* 'kv', 256, got {entries}"):
        Engine(plan, tensors)


@pytest.mark.parametrize("threads", [0, -3, 5000])
def test_bad_threads(threads: int) -> None:
    plan, tensors = small_plan(replace(PLAIN, layers=0))
    with pytest.raises(UsageError, match=f"{threads}"):
        Engine(plan, tensors, threads=threads)


@pytest.mark.parametrize("batch", [0, -1])
def test_bad_batches(batch: int) -> None:
    plan, tensors = small_plan(replace(PLAIN, layers=0))
    with pytest.raises(TritError):
        Engine(plan, tensors, batch=batch)


def test_an_isa_this_machine_lacks(monkeypatch: pytest.MonkeyPatch, isas: list[str]) -> None:
    plan, tensors = small_plan(replace(PLAIN, layers=0))
    monkeypatch.setenv("TRIT_ISA", "mmx")
    with pytest.raises(UsageError, match=f"TRIT_ISA=mmx: this machine has {', '.join(isas)}"):
        Engine(plan, tensors)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"top_k": 0}, "experts used"),
        ({"top_k": 6}, "experts used"),
        ({"gate": Stack("0.down", 5, 52, 256)}, "gates"),
        ({"up": Stack("0.q", 5, 52, 256)}, "gates"),
        ({"down": Stack("0.up", 5, 256, 52)}, "down projections"),
        ({"router": Linear("0.q", 7, 256)}, "gates"),
    ],
)
def test_experts_that_do_not_fit_together(change: dict[str, object], names: str) -> None:
    plan, tensors = small_plan(replace(EXPERTS, layers=1))
    part = replace(plan.layers[0].feed_forward, **change)
    broken = replace(plan, layers=(replace(plan.layers[0], feed_forward=part),))
    with pytest.raises(UnsupportedError, match=names):
        Engine(broken, tensors)


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


@pytest.mark.parametrize("experts", [0, 5])
def test_weights_packed_or_mapped_give_the_same_bits(experts: int) -> None:
    for name in ("q4_0", "q6_k", "q2_k"):
        plan, tensors = small_plan(Parts(formats=(name,), inner=512, experts=experts))
        packed = Engine(plan, tensors, threads=2, repack=True)
        mapped = Engine(plan, tensors, threads=2, repack=False)
        stacked = sum(t.nbytes for name, t in tensors.items() if name.endswith((".up", ".down")))
        assert packed.tile_bytes() > stacked > 0 == mapped.tile_bytes()
        for count in (1, 3, 4, 5, 20):
            rows = Rows.of(range(count), 0, count)
            for _ in range(2):  # the pass that packs, and one that finds the tiles
                assert np.array_equal(packed.forward(rows), mapped.forward(rows))
                packed.remove(count)
                mapped.remove(count)


@pytest.mark.parametrize("threads", [1, 4])
def test_pages_of_the_file_are_given_back(tmp_path: Path, threads: int) -> None:
    rows = 40_013  # 11 MB, more than two of the pieces that are let go of
    few = matrix("head", "q8_0", 1000, 256)
    weights = Tensor("head", (rows, 256), few.format, np.resize(few.data, (rows, few.row_bytes)))
    path = tmp_path / "weights"
    path.write_bytes(bytes(100) + weights.data.tobytes() + bytes(10_000))
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapping, np.uint8, weights.nbytes, 100).reshape(weights.data.shape)
    plan, tensors = head_only(weights, np.ones(256, dtype=np.float32))
    mapped = {**tensors, "head": Tensor("head", weights.shape, weights.format, data)}
    engine = Engine(plan, mapped, threads=threads, repack=True)
    expected = Engine(plan, tensors, threads=1, repack=False).forward(Rows.of(range(3)))
    assert np.array_equal(engine.forward(Rows.of(range(3), 0, 1)), expected)
    if sys.platform == "linux":
        assert resident(path) < 100_000
    assert np.array_equal(engine.forward(Rows.of(range(3), 0, 2)), expected)


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    parts = Path("/proc/self/smaps").read_text().partition(str(path))[2]
    return 1024 * int(parts.partition("Rss:")[2].split()[0])


def test_without_room_for_a_copy_weights_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, tensors = small_plan(Parts(formats=("q4_0",)))
    monkeypatch.setattr("trit.engine.free_memory", lambda: 1000)
    assert Engine(plan, tensors).tile_bytes() == 0
