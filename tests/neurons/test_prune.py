"""Pruning: what stays is what was there, bytes and values; engine and measurement agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import small_model
import text_model
import trit
from trit import archs, formats
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, UnsupportedError, UsageError
from trit.files import checkpoint, gguf
from trit.files.gguf import Tensor, Value, ValueType
from trit.neurons import Neurons, Pruned, _prune
from trit.synth.shapes import custom

Floats = NDArray[np.float32]

CTX = 48
TOKENS = [5, 200, 31, 7, 99]
DARK = 128  # rows of zeros in the middle of each layer: their neurons give nothing at all


def silence(weights: dict[str, Floats]) -> None:
    for i in range(small_model.LAYERS):
        weights[f"blk.{i}.ffn_up.weight"][100 : 100 + DARK] = 0


def prune(model: Path, out: Path, share: float, **named: object) -> Pruned:
    options = {"ctx": CTX, "chunks": 2, "threads": 1, "eval_text": text_model.TEXT * 3} | named
    return trit.prune(model, out, share, text_model.TEXT, **options)  # type: ignore[arg-type]


def logits(path: Path) -> Floats:
    with checkpoint.open(path) as file:
        return Engine(archs.plan(file), file.tensors, threads=1, ctx=16).forward(Rows.of(TOKENS))


def requantized(path: Path, out: Path, kind: str) -> Path:
    trit.quantize(path, out, kind)
    return out


def test_neurons_that_give_nothing_go_first(tmp_path: Path) -> None:
    """A model without its dead neurons is the same model."""
    model = text_model.write(tmp_path / "model.gguf", change=silence)
    result = prune(model, tmp_path / "out.gguf", DARK / small_model.FEED_FORWARD)
    assert (result.before, result.after, result.multiple) == (512, 384, 32)
    assert result.energy == 0 and result.rounded == 0
    kept = np.r_[:100, 100 + DARK : 512]
    with gguf.open(model) as before, gguf.open(result.path) as after:
        assert list(after.tensors) == list(before.tensors)
        for name, tensor in after.tensors.items():
            expected = before[name].decode()
            if "ffn_down" in name:
                expected = expected[:, kept]
            elif "ffn_up" in name or "ffn_gate" in name:
                expected = expected[kept]
            np.testing.assert_array_equal(tensor.decode(), expected)
        assert after.metadata["llama.feed_forward_length"] == 384
        assert after.metadata["trit.prune.feed_forward_length"] == 512
        assert np.array_equal(after.metadata["trit.prune.kept"], np.tile(kept, 2))
        same = {k: v for k, v in before.metadata.items() if k != "llama.feed_forward_length"}
        said = {k: v for k, v in after.metadata.items() if k in same}
        assert {k: repr(v) for k, v in said.items()} == {k: repr(v) for k, v in same.items()}
        assert after.values["someone.else.u8"].type is ValueType.UINT8
    # Only the order of sums differs: 384 products instead of 512, in float32.
    scale = np.abs(logits(model)).max()
    assert np.abs(logits(result.path) - logits(model)).max() <= 512 * 2**-23 * scale
    found = result.evaluation.divergence
    assert found is not None and abs(found.kld.mean) < 1e-6


def test_a_share_that_matters_is_measured(tmp_path: Path) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    small, large = (prune(model, tmp_path / "out.gguf", share) for share in (0.1, 0.6))
    assert (small.after, large.after) == (448, 192)  # nearest to 460.8 and 204.8
    for result in (small, large):
        assert result.evaluation.reference == str(model)
        assert result.evaluation.model == str(result.path)
    klds = [r.evaluation.divergence.kld.mean for r in (small, large)]  # type: ignore[union-attr]
    assert 0 < klds[0] < klds[1] and 0 < small.energy < large.energy < 1
    gone = [np.sort(layer.even_energy)[: 512 - large.after].sum() for layer in large.neurons.layers]
    assert large.energy == pytest.approx(np.mean(gone))
    assert large.bytes == large.path.stat().st_size < large.bytes_before


@pytest.mark.parametrize(("kind", "multiple"), [("Q8_0", 32), ("Q4_K_S", 256)])
def test_rows_are_copied_and_columns_rounded_again(
    tmp_path: Path, kind: str, multiple: int
) -> None:
    whole = text_model.write(tmp_path / "whole.gguf")
    model = requantized(whole, tmp_path / "model.gguf", kind)
    result = prune(model, tmp_path / "out.gguf", 0.5)
    assert (result.after, result.multiple, result.rounded) == (256, multiple, 2)
    with gguf.open(model) as before, gguf.open(result.path) as after:
        kept = np.asarray(after.metadata["trit.prune.kept"]).reshape(2, -1)
        lost = whole_energy = 0.0
        for i, rows in enumerate(kept):
            for name in ("ffn_gate", "ffn_up"):
                old, new = (file[f"blk.{i}.{name}.weight"] for file in (before, after))
                assert new.format is old.format and np.array_equal(new.data, old.data[rows])
            old, new = (file[f"blk.{i}.ffn_down.weight"] for file in (before, after))
            assert new.format is old.format
            expected = old.decode()[:, rows]
            lost += np.square(new.decode() - expected, dtype=np.float64).sum()
            whole_energy += np.square(expected, dtype=np.float64).sum()
    assert result.rounding_error == pytest.approx((lost / whole_energy) ** 0.5)
    assert 0 < result.rounding_error < 0.1
    assert np.isfinite(logits(result.path)).all()


def test_ternary_stays_exact(tmp_path: Path) -> None:
    """Of one scale throughout, as BitNet's are: codes move, none changes."""

    def ternary(weights: dict[str, Floats]) -> None:
        for name, array in weights.items():
            if "ffn_down" in name:
                array[:] = np.sign(np.round(array * 16)) / 32

    whole = text_model.write(tmp_path / "whole.gguf", change=ternary)
    model = tmp_path / "model.gguf"
    trit.quantize(whole, model, "Q8_0", tensor_types=["ffn_down=tq2_0"])
    result = prune(model, tmp_path / "out.gguf", 0.5)
    assert (result.multiple, result.rounded, result.rounding_error) == (256, 2, 0.0)


def test_a_list_of_lengths_stays_a_list(tmp_path: Path) -> None:
    whole = text_model.write(tmp_path / "whole.gguf")
    path = tmp_path / "model.gguf"
    with gguf.open(whole) as file:
        lengths = Value(ValueType.INT32, [512, 512])
        gguf.write(
            path, file.values | {"llama.feed_forward_length": lengths}, file.tensors.values()
        )
    result = prune(path, tmp_path / "out.gguf", 0.25)
    with gguf.open(result.path) as file:
        value = file.values["llama.feed_forward_length"]
        assert value.type is ValueType.INT32 and list(value.value) == [384, 384]  # type: ignore[arg-type]
    assert np.isfinite(logits(result.path)).all()


def test_fused_rows_biases_and_norms() -> None:
    """Gate and up as slices of one matrix, their biases, and a norm before `ffn_down`."""
    from trit.neurons import _narrow
    from trit.plan import GatedFeedForward, Linear, Norm

    gate = Linear("up", 8, 4, "bias")
    part = GatedFeedForward(gate, replace(gate, row_start=8), Linear("down", 4, 8), "relu2",
                            Norm("norm", 1e-5))  # fmt: skip
    keep = np.array([1, 2, 7])
    rows, columns = _narrow.cuts([part], [keep])
    both = [1, 2, 7, 9, 10, 15]
    assert {name: found.tolist() for name, found in rows.items()} == {
        "up": both, "bias": both, "norm": [1, 2, 7],
    }  # fmt: skip
    assert columns["down"].tolist() == [1, 2, 7]
    f32 = formats.get("f32")
    vector = Tensor("bias", (16,), f32, np.arange(16, dtype="<f4").view(np.uint8))
    assert _narrow.some_rows(vector, rows["bias"]).view("<f4").reshape(-1).tolist() == both


def test_measured_before_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    first = prune(model, tmp_path / "one.gguf", 0.25)
    monkeypatch.setattr(_prune, "neurons", lambda *a, **k: pytest.fail("measured again"))
    second = prune(model, tmp_path / "two.gguf", 0.25, measured=first.neurons)
    assert first.path.read_bytes() == second.path.read_bytes()
    with pytest.raises(UsageError, match="has other layers than"):
        prune(second.path, tmp_path / "three.gguf", 0.25, measured=first.neurons)


@pytest.mark.parametrize(
    ("share", "named", "error", "message"),
    [
        (1.0, {}, UsageError, "expected a share between 0 and 1"),
        (-0.1, {}, UsageError, "expected a share between 0 and 1"),
        (0.01, {}, UsageError, "512 would stay.* Shares from 0.062 to 0.938 can go"),
        (0.01, {"multiple": 200}, UsageError, "Shares from 0.219 to 0.609 can go"),
        (0.2, {"multiple": 1000}, UsageError, "of 512 neurons none can go.* a multiple of 1,000"),
        (0.99, {}, UsageError, "of 512 neurons 0 would stay"),
        (0.5, {"multiple": 0}, UsageError, "--multiple 0"),
        (0.5, {"eval_text": "short"}, UsageError, "one window needs 128"),
        (0.5, {"eval_text": Path("absent.txt")}, trit.TritError, "absent.txt"),
        (0.5, {"ctx": 999}, DoesNotFitError, "made for 128"),
    ],
)
def test_bad_requests_before_anything_is_measured(
    share: float,
    named: dict[str, object],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    monkeypatch.setattr(_prune, "neurons", lambda *a, **k: pytest.fail("measured"))
    with pytest.raises(error, match=message):
        prune(model, tmp_path / "out.gguf", share, **named)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_what_cannot_be_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    monkeypatch.setattr(_prune, "neurons", lambda *a, **k: pytest.fail("measured"))
    with pytest.raises(UsageError, match="is an input"):
        prune(model, model, 0.5)
    text = tmp_path / "text.txt"
    text.write_text(text_model.TEXT * 3, encoding="utf-8")
    with pytest.raises(UsageError, match="is an input"):
        prune(model, text, 0.5, eval_text=text)
    for out in (tmp_path, tmp_path / "absent" / "out.gguf"):
        with pytest.raises(UsageError, match="a file in a folder that is there"):
            prune(model, out, 0.5)
    k_quant = requantized(model, tmp_path / "q4.gguf", "Q4_K_S")
    with pytest.raises(UsageError, match="--multiple 32: expected a multiple of 256"):
        prune(k_quant, tmp_path / "out.gguf", 0.5, multiple=32)
    monkeypatch.setattr(_prune, "WRITTEN", frozenset({"q4_0"}))
    with pytest.raises(UnsupportedError, match="q4_k, which trit reads but does not write"):
        prune(k_quant, tmp_path / "out.gguf", 0.5)
    moe = small_model.write(
        tmp_path / "moe.gguf", small_model.mixture(), extra=small_model.MIXTURE_KEYS
    )
    with pytest.raises(UnsupportedError, match="mixture of experts"):
        prune(moe, tmp_path / "out.gguf", 0.5)
    assert not (tmp_path / "out.gguf").exists()


def test_layers_of_different_sizes(tmp_path: Path) -> None:
    def narrow(weights: dict[str, Floats]) -> None:
        for name in ("gate", "up"):
            weights[f"blk.1.ffn_{name}.weight"] = weights[f"blk.1.ffn_{name}.weight"][:256]
        weights["blk.1.ffn_down.weight"] = weights["blk.1.ffn_down.weight"][:, :256]

    whole = text_model.write(tmp_path / "whole.gguf", change=narrow)
    model = tmp_path / "model.gguf"
    with gguf.open(whole) as file:
        lengths = Value(ValueType.INT32, [512, 256])
        gguf.write(
            model, file.values | {"llama.feed_forward_length": lengths}, file.tensors.values()
        )
    found: Neurons = trit.neurons(model, text_model.TEXT, ctx=CTX, chunks=1, threads=1)
    assert [layer.neurons for layer in found.layers] == [512, 256]
    with pytest.raises(UnsupportedError, match="256 to 512 neurons"):
        prune(model, tmp_path / "out.gguf", 0.5)


def test_llama_cpp_loads_it(tmp_path: Path) -> None:
    """The same logits, but for rounding, of rows copied and columns rounded again."""
    llama_cpp = pytest.importorskip("llama_cpp")
    shape = custom(layers=2, width=256, heads=4, kv_heads=2, ffn=512, vocab=300)
    model = tmp_path / "model.gguf"
    trit.synth(shape, model, "Q4_K_S")
    text = "Hello w world " * 40
    result = trit.prune(model, tmp_path / "out.gguf", 0.5, text, chunks=1, eval_text=text * 3)
    theirs = llama_cpp.Llama(
        str(result.path), n_ctx=64, n_threads=2, verbose=False, logits_all=True
    )
    theirs.eval(TOKENS)
    found = np.array(theirs.scores[len(TOKENS) - 1])
    assert np.corrcoef(found, logits(result.path)[-1])[0, 1] > 0.99
