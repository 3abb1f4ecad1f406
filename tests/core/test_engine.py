"""The engine's promises: pieces of a pass are the pass, what is removed is gone, errors are typed.

What it computes is judged in test_engine_reference.py.
"""

from __future__ import annotations

import mmap
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import EXPERTS, MODELS, PLAIN, TOKENS, Model, all_logits, made, random_tokens
from small_plan import Parts, Tensors, head_only, matrix, small_plan, vector

from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, TritError, UnsupportedError, UsageError
from trit.files.gguf import Tensor
from trit.plan import Attention, Linear, Plan, Stack


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param)


def test_the_last_row_is_the_default_and_hidden_feeds_the_head(model: Model) -> None:
    engine = model.engine()
    every = model.logits
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
    assert np.array_equal(engine.head(hidden), model.logits)


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
        assert np.array_equal(found, model.logits[keep:]), keep
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
    """To the bit what matrices of their own give."""
    plan, tensors = fused(bias=256)
    tokens = random_tokens(plan.vocab_size)
    found = all_logits(Engine(plan, tensors, threads=1), tokens)
    whole, bias = tensors["kv"], tensors["kv.bias"].decode()
    parts = {}
    for part, at in (("k", slice(0, 128)), ("v", slice(128, 256))):
        tensors[part] = Tensor(part, (128, whole.cols), whole.format, whole.data[at])
        tensors[f"{part}.bias"] = vector(f"{part}.bias", bias[at])
        parts[part] = Linear(part, 128, whole.cols, f"{part}.bias")
    layer = replace(plan.layers[0], mixer=replace(plan.layers[0].mixer, **parts))
    apart = Engine(replace(plan, layers=(layer,)), tensors, threads=1)
    assert np.array_equal(found, all_logits(apart, tokens))


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
