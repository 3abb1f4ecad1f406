"""Layer by layer: the engine's own bits, whatever the threads, the passes and the memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import small_model
from trit import archs, formats
from trit.calibrate import Inputs, LayerPass, _walk, walk
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, InvalidFileError, TritError, UsageError
from trit.files import checkpoint
from trit.files.checkpoint import Checkpoint
from trit.files.gguf import Tensor
from trit.quantizers import rtn

Floats = NDArray[np.float32]

CHUNKS, CTX = 5, 48
Q, OUTPUT, DOWN = "blk.0.attn_q.weight", "blk.1.attn_output.weight", "blk.1.ffn_down.weight"
Opened = Callable[..., Checkpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Makes and opens a small model; `change` may spoil its weights first."""
    files: list[Checkpoint] = []

    def make(
        mixture: bool = False,
        matrices: str = "f32",
        change: Callable[[dict[str, Floats]], None] = lambda weights: None,
    ) -> Checkpoint:
        weights = small_model.mixture() if mixture else small_model.arrays()
        weights["token_embd.weight"] *= 16
        for array in weights.values():
            if array.ndim == 1:
                array += 1.0
        change(weights)
        extra = small_model.MIXTURE_KEYS if mixture else None
        path = small_model.write(tmp_path / f"{len(files)}.gguf", weights, matrices, extra)
        files.append(checkpoint.open(path))
        return files[-1]

    yield make
    for file in files:
        file.close()


def tokens(chunks: int = CHUNKS, ctx: int = CTX) -> NDArray[np.int32]:
    random = np.random.default_rng(0)
    return random.integers(0, small_model.VOCAB, (chunks, ctx)).astype(np.int32)


def collected(*given: object, **named: object) -> tuple[dict[str, Inputs], Floats]:
    """Every weight's statistics, and what comes out of the last layer."""
    found: dict[str, Inputs] = {}
    outputs = np.empty(0, np.float32)
    for layer in walk(*given, **named):  # type: ignore[arg-type]
        found |= {name: inputs for inputs in layer.inputs for name in inputs.names}
        outputs = layer.outputs.copy()
    return found, outputs


def assert_same(one: dict[str, Inputs], other: dict[str, Inputs]) -> None:
    assert list(one) == list(other)
    for name, inputs in one.items():
        assert np.array_equal(inputs.sums, other[name].sums)
        assert np.array_equal(inputs.counts, other[name].counts)
        if inputs.gram is not None:
            assert np.array_equal(inputs.gram, other[name].gram)


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("matrices", ["f32", "f16"])
def test_what_comes_out_is_what_the_engine_gives(
    opened: Opened, mixture: bool, matrices: str
) -> None:
    """Each chunk as a sequence of its own, float weights multiplied as floats."""
    model = opened(mixture, matrices)
    plan = archs.plan(model, context=CTX)
    _, outputs = collected(model, tokens(), exact=True)
    engine = Engine(plan, model.tensors, ctx=CTX)
    expected = [
        engine.hidden(Rows.of(chunk, sequence=number)) for number, chunk in enumerate(tokens())
    ]
    assert np.array_equal(outputs, np.concatenate(expected))


def test_quantized_weights_are_multiplied_as_they_are(opened: Opened) -> None:
    model = opened()
    data = {
        name: quantized(tensor, "q4_k") if tensor.rows > 1 and len(tensor.shape) > 1 else tensor
        for name, tensor in model.tensors.items()
    }
    small = Checkpoint(model.path, "gguf", model.metadata, {}, data, lambda: None)
    _, outputs = collected(small, tokens())
    engine = Engine(archs.plan(small, context=CTX), data, ctx=CTX)
    expected = np.concatenate(
        [engine.hidden(Rows.of(chunk, sequence=i)) for i, chunk in enumerate(tokens())]
    )
    assert np.array_equal(outputs, expected)


def quantized(tensor: Tensor, format_name: str) -> Tensor:
    packed = rtn.quantize(tensor.decode().reshape(tensor.rows, -1), format_name, threads=1)
    shape = (*tensor.shape[:-1], packed.shape[-1])
    return Tensor(tensor.name, tensor.shape, formats.get(format_name), packed.reshape(shape))


@pytest.mark.parametrize("mixture", [False, True])
def test_float_weights_are_rounded_to_8_bits(opened: Opened, mixture: bool) -> None:
    """All matrices but the router; what that changes is small."""
    model = opened(mixture)
    rounded = {
        name: quantized(tensor, "q8_0")
        if len(tensor.shape) > 1 and "inp" not in name and "embd" not in name
        else tensor
        for name, tensor in model.tensors.items()
    }
    small = Checkpoint(model.path, "gguf", model.metadata, {}, rounded, lambda: None)
    found, outputs = collected(model, tokens())
    expected, others = collected(small, tokens())
    assert np.array_equal(outputs, others)
    assert_same(found, expected)
    exact, _ = collected(model, tokens(), exact=True)
    for name, inputs in exact.items():
        if "exps" not in name:
            difference = np.abs(found[name].sums - inputs.sums).sum()
            assert 0 <= difference <= 0.03 * inputs.sums.sum()
    assert found[DOWN.replace("down", "down_exps") if mixture else DOWN].sums.sum() != 0


@pytest.mark.parametrize("mixture", [False, True])
def test_threads_and_passes_change_no_bit(
    opened: Opened, mixture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(mixture)
    monkeypatch.setattr("trit.calibrate._inputs.GRAM_ROWS", 16)
    expected, outputs = collected(model, tokens(), gram=True, threads=1)
    for rows, threads in ((7, 1), (CTX, 3), (CTX * 2, 2)):
        monkeypatch.setattr(_walk, "PASS_ROWS", rows)
        monkeypatch.setattr(_walk, "MOST_ROWS", rows)
        found, others = collected(model, tokens(), gram=True, threads=threads)
        assert np.array_equal(outputs, others)
        assert_same(found, expected)


@pytest.mark.parametrize("mixture", [False, True])
def test_gram_matrices(opened: Opened, mixture: bool) -> None:
    """Against float64 on the tapped inputs; each expert's apart."""
    for layer in walk(opened(mixture), tokens(), gram=True):
        for inputs in layer.inputs:
            x, experts = layer.sample(inputs.names[0], range(CHUNKS))
            assert (experts is not None) == (len(inputs.sums) > 1)
            for number in range(len(inputs.sums)):
                own = (x if experts is None else x[experts == number]).astype(np.float64)
                assert inputs.counts[number] == len(own)
                np.testing.assert_allclose(
                    inputs.sums[number], np.square(own).sum(axis=0), rtol=1e-13
                )
                assert inputs.gram is not None
                gram, size = inputs.gram[number], np.abs(own).T @ np.abs(own)
                assert (np.abs(gram - own.T @ own) <= (len(own) + 2) * 2.0**-24 * size).all()
                assert np.array_equal(gram, gram.T)


def test_weights_that_share_an_input_share_its_statistics(opened: Opened) -> None:
    first = next(walk(opened(), tokens()))
    names = [[name.split(".")[2] for name in inputs.names] for inputs in first.inputs]
    assert names == [["attn_q", "attn_k", "attn_v"], ["attn_output"], ["ffn_gate", "ffn_up"],
                     ["ffn_down"]]  # fmt: skip
    assert first.of(Q) is first.inputs[0]
    with pytest.raises(KeyError):
        first.of(OUTPUT)


def test_an_expert_that_sees_nothing(opened: Opened) -> None:
    """Logits s, -s, 0, 0: the first or the second is chosen, and always the third."""

    def close(weights: dict[str, Floats]) -> None:
        for name in weights:
            if "gate_inp" in name:
                weights[name][:] = np.array([[1], [-1], [0], [0]])

    for layer in walk(opened(True, change=close), tokens(), gram=True):
        for inputs in layer.inputs:
            if len(inputs.sums) == 1:
                assert inputs.unseen == []
                continue
            assert inputs.counts[2] == inputs.counts[:2].sum() == CHUNKS * CTX
            assert inputs.unseen == [3] and inputs.gram is not None
            assert (inputs.means[3] == 1).all()
            assert not inputs.sums[3].any() and not inputs.gram[3].any()
            means = inputs.sums[:3] / inputs.counts[:3, None]
            assert np.array_equal(inputs.means[:3], means.astype(np.float32))


def test_a_column_that_never_fires(opened: Opened) -> None:
    def silence(weights: dict[str, Floats]) -> None:
        weights["blk.0.attn_norm.weight"][5] = 0

    found, _ = collected(opened(change=silence), tokens(), gram=True)
    assert found[Q].sums[0, 5] == found[Q].means[0, 5] == 0
    assert found[Q].gram is not None and not found[Q].gram[0, 5].any()


def test_the_next_layer_sees_what_was_replaced(opened: Opened) -> None:
    """As if the model had had these weights from the beginning."""
    model = opened()
    swapped = {
        name: quantized(tensor, "q4_0")
        for name, tensor in model.tensors.items()
        if name.startswith("blk.0.") and len(tensor.shape) > 1
    }
    norm = model.tensors["blk.0.ffn_norm.weight"]
    doubled = (norm.decode() * 2).view(np.uint8)
    swapped[norm.name] = Tensor(norm.name, norm.shape, norm.format, doubled)
    changed = Checkpoint(
        model.path, "gguf", model.metadata, {}, {**model.tensors, **swapped}, lambda: None
    )
    expected, outputs = collected(changed, tokens(), gram=True)
    passes: list[dict[str, Inputs]] = []
    for layer in walk(model, tokens(), gram=True):
        before, first = layer.hidden.copy(), layer.outputs.copy()
        if layer.index == 0:
            own = {name: inputs for inputs in layer.inputs for name in inputs.names}
            again = layer.replace(swapped, gram=True)
            assert np.array_equal(layer.hidden, before)
            assert not np.array_equal(layer.outputs, first)
            assert own[Q].sums is not again[0].sums  # what was measured before stays
            passes.append({name: inputs for inputs in again for name in inputs.names})
        else:
            passes.append({name: inputs for inputs in layer.inputs for name in inputs.names})
            assert np.array_equal(layer.outputs, outputs)
    assert_same(passes[0] | passes[1], expected)


def test_replacing_by_the_same_changes_nothing(opened: Opened) -> None:
    model = opened()
    for layer in walk(model, tokens()):
        outputs = layer.outputs.copy()
        again = layer.replace({Q: model.tensors[Q]} if layer.index == 0 else {})
        assert np.array_equal(layer.outputs, outputs)
        assert_same({"a": again[0]}, {"a": layer.inputs[0]})


def test_replacements_that_do_not_belong(opened: Opened) -> None:
    model = opened()
    steps = walk(model, tokens())
    layer = next(steps)
    with pytest.raises(UsageError, match=r"blk\.1\.attn_output\.weight.*not in layer 0"):
        layer.replace({OUTPUT: model.tensors[OUTPUT]})
    with pytest.raises(UsageError, match=r"expected shape \(256, 256\), got \(128, 256\)"):
        layer.replace({Q: model.tensors["blk.0.attn_k.weight"]})


def test_two_walks_side_by_side(opened: Opened) -> None:
    """The model's own stream beside that of a prefix whose weights were replaced."""
    model, zeros = opened(), {}
    down = model.tensors["blk.0.ffn_down.weight"]
    zeros[down.name] = Tensor(down.name, down.shape, down.format, np.zeros_like(down.data))
    own, _ = collected(model, tokens())
    for plain, other in zip(walk(model, tokens()), walk(model, tokens()), strict=True):
        assert_same({"a": plain.inputs[0]}, {"a": own[plain.inputs[0].names[0]]})
        if other.index == 0:
            other.replace(zeros)
        else:
            assert not np.array_equal(other.hidden, plain.hidden)


def test_samples_are_the_inputs_of_some_chunks(opened: Opened) -> None:
    for layer in walk(opened(), tokens()):
        whole, none = layer.sample(layer.inputs[3].names[0], range(CHUNKS))
        part, _ = layer.sample(layer.inputs[3].names[0], range(1, 3))
        assert none is None and whole.shape == (CHUNKS * CTX, small_model.FEED_FORWARD)
        assert np.array_equal(part, whole[CTX : 3 * CTX])


def test_views_are_not_for_writing(opened: Opened) -> None:
    steps = walk(opened(), tokens())
    layer = next(steps)
    for array in (layer.hidden, layer.outputs):
        assert array.shape == (CHUNKS * CTX, small_model.EMBED)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_hidden_states_beyond_the_memory_lie_in_a_file(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = opened(), tmp_path / "scratch"
    folder.mkdir()
    expected, outputs = collected(model, tokens())
    spilled: list[bool] = []
    made: list[LayerPass] = []
    for layer in walk(model, tokens(), memory=1000, folder=folder):
        spilled.append(layer._walk.hidden.spilled)
        made.append(layer)
    found, others = collected(model, tokens(), memory=1000, folder=folder)
    assert spilled == [True, True] and np.array_equal(outputs, others)
    assert_same(found, expected)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 10}))
    with pytest.raises(DoesNotFitError, match="hidden states of the text need"):
        next(walk(model, tokens(), memory=1000, folder=folder))


def test_one_layer_is_held(opened: Opened) -> None:
    """No engine outlives its layer, and a walk left early leaves none."""
    model = opened()
    seen: list[weakref.ref[Engine]] = []

    def alive() -> int:
        gc.collect()
        return sum(each() is not None for each in seen)

    for layer in walk(model, tokens()):
        seen.append(weakref.ref(layer._walk._engine))  # type: ignore[arg-type]
        layer.replace({})
        seen.append(weakref.ref(layer._walk._engine))  # type: ignore[arg-type]
        assert alive() == 1
    assert len(seen) == 2 * small_model.LAYERS and alive() == 0
    steps = walk(model, tokens())
    seen.append(weakref.ref(next(steps)._walk._engine))  # type: ignore[arg-type]
    assert alive() == 1
    steps.close()  # type: ignore[attr-defined]
    assert alive() == 0


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number(opened: Opened, poison: float) -> None:
    def spoil(weights: dict[str, Floats]) -> None:
        weights[OUTPUT][7, 9] = poison

    model = opened(change=spoil)
    problem = r"tensor 'blk\.1\.attn_output\.weight' row 7, column 9: expected a finite weight"
    with pytest.raises(InvalidFileError, match=problem):
        collected(model, tokens())
    with pytest.raises(TritError, match=r"layer 1: .*'blk\.1\.ffn_gate\.weight' is not finite"):
        collected(model, tokens(), exact=True)


def test_activations_that_are_no_numbers(opened: Opened) -> None:
    def overflow(weights: dict[str, Floats]) -> None:
        weights["blk.0.ffn_down.weight"][:] = 3e38

    problem = (
        r"0\.gguf: layer 0: what the layer gives, the last of it by 'blk\.0\.ffn_down\.weight'"
    )
    with pytest.raises(TritError, match=problem):
        collected(opened(change=overflow), tokens(), exact=True)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (np.empty((0, 8), np.int32), "text is empty"),
        (np.empty((3, 0), np.int32), "text is empty"),
        (np.array([[1, 64]], np.int32), "token 64 is not in the vocabulary"),
        (np.array([[-1, 2]], np.int32), "token -1 is not in the vocabulary"),
    ],
)
def test_tokens_that_make_no_sense(opened: Opened, given: NDArray[np.int32], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        next(walk(opened(), given))


def test_chunks_beyond_the_context(opened: Opened) -> None:
    with pytest.raises(DoesNotFitError, match=r"chunks of 129 tokens .* made for 128"):
        next(walk(opened(), tokens(1, 129)))


def test_no_room_for_gram_matrices(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trit.calibrate._walk.free_memory", lambda: 1 << 20)
    assert next(walk(opened(), tokens())).index == 0
    with pytest.raises(DoesNotFitError, match="Gram matrices of layer 0 need"):
        next(walk(opened(), tokens(), gram=True))


def test_progress_counts_tokens(opened: Opened) -> None:
    seen: list[tuple[str, int, int]] = []
    collected(opened(), tokens(), on_progress=lambda *event: seen.append(event))
    assert {(what, total) for what, _, total in seen} == {("measuring", CHUNKS * CTX)}
    done = [each for _, each, _ in seen]
    assert done == sorted(done) and done[-1] == CHUNKS * CTX
