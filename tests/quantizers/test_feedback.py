"""Error feedback through a whole model: layer by layer, resumable, and only where it helps."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import small_model
import text_model
from trit import calibrate, formats, quantize, recipe
from trit.calibrate import Data, walk
from trit.errors import InvalidFileError, UsageError
from trit.files import checkpoint, gguf
from trit.files.gguf import TensorInfo
from trit.files.source import open_source
from trit.job import feedback
from trit.job.feedback import SINKS, Feedback, spread
from trit.job.transcode import Transcoder
from trit.quantize import prepare_quantize
from trit.quantizers import gptq, rtn

TYPE = "Q4_K_S"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    random = np.random.default_rng(0)
    words = text_model.TEXT.split()
    path.write_text(" ".join(random.choice(words) for _ in range(1500)))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return text_model.write(tmp_path / "source.gguf")


def fed(path: Path, text: Path, out: Path, **options: object) -> Path:
    quantize(path, out, TYPE, quantizer="gptq", calibration=text, **options)  # type: ignore[arg-type]
    return out


@pytest.mark.unsanitized
def test_each_layer_is_rounded_on_what_the_rounded_ones_before_give(
    source: Path, text: Path, tmp_path: Path
) -> None:
    out = fed(source, text, tmp_path / "out.gguf")
    with checkpoint.open(source) as model, checkpoint.open(out) as made:
        given = calibrate.data(model, text)
        changed = 0
        for layer in walk(model, spread(given.tokens, feedback.CHUNKS), gram=True, sinks=SINKS):
            names = calibrate.weights(calibrate.plan_for(model), layer.index)
            for name in names:
                inputs, tensor = layer.of(name), made.tensors[name]
                assert inputs.gram is not None
                weights = model.tensors[name].decode()
                plain = rtn.quantize(weights, tensor.format.name, inputs.means[0])
                block = tensor.format.block_weights
                hessian = gptq.hessian(inputs.gram[0], int(inputs.counts[0]), block)
                choice = gptq.choose(weights, tensor.format.name, hessian, plain)
                assert np.array_equal(tensor.data, choice.data)
                changed += choice.fed_back
            layer.replace({name: made.tensors[name] for name in names})
        assert changed > 10
        # What is in no layer is rounded to nearest.
        table = model.tensors["token_embd.weight"].decode()
        packed = made.tensors["token_embd.weight"]
        assert np.array_equal(packed.data, rtn.quantize(table, packed.format.name))


@pytest.mark.unsanitized
def test_what_is_written_about_it(source: Path, text: Path, tmp_path: Path) -> None:
    with gguf.open(fed(source, text, tmp_path / "out.gguf")) as file:
        recipe = json.loads(str(file.metadata["trit.recipe"]))
    assert recipe["quantizer"] == "gptq" and recipe["calibration"] == "text.txt"
    assert len(recipe["calibration_sha256"]) == 64
    assert recipe["calibration_chunks"] == feedback.CHUNKS


class Stop:
    """Progress that interrupts once so many bytes are written."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, what: str, done: int, total: int) -> None:
        if what in ("rounding", "writing") and done > self.after:
            raise KeyboardInterrupt


@pytest.mark.unsanitized
def test_an_interrupted_job_resumes_to_the_same_bytes(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = fed(source, text, tmp_path / "straight.gguf")
    whole = quantize(source, None, TYPE, dry_run=True).tensor_bytes
    out = tmp_path / "out.gguf"
    rounded: list[str] = []
    tensor = Feedback._tensor

    def watched(self: Feedback, *args: object) -> object:
        rounded.append(args[0].name)  # type: ignore[attr-defined]
        return tensor(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Feedback, "_tensor", watched)
    for share in (0.1, 0.4, 0.7):  # within a layer, and in another
        with pytest.raises(KeyboardInterrupt):
            fed(source, text, out, on_progress=Stop(int(share * whole)))
    fed(source, text, out)
    assert out.read_bytes() == straight.read_bytes()
    assert len(rounded) - len(set(rounded)) <= 3, "only what was interrupted is done again"


@pytest.mark.unsanitized
def test_another_text_is_another_job(source: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        fed(source, text, out, on_progress=Stop(100_000))
    text.write_text(text.read_text()[::-1])
    assert quantize(source, out, TYPE, quantizer="gptq", calibration=text).resumed == 0


@pytest.mark.unsanitized
def test_threads_change_nothing(source: Path, text: Path, tmp_path: Path) -> None:
    one = fed(source, text, tmp_path / "1.gguf", threads=1).read_bytes()
    assert fed(source, text, tmp_path / "3.gguf", threads=3).read_bytes() == one


@pytest.mark.unsanitized
def test_what_it_costs_is_judged_by_a_layer(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = recipe.overrides((), None, None, pure=False)
    measured = Feedback(text, chunks=10)
    with prepare_quantize(source, tmp_path / "1.gguf", TYPE, target, feedback=measured) as job:
        assert 0 < job.estimate_seconds() < 60
        plain = {1: 3.0, 3: 7.0}  # one second to open a layer, two for each chunk
        monkeypatch.setattr(
            feedback, "_first_layer_seconds", lambda of, count, threads: plain[count]
        )
        layers = len(calibrate.plan_for(job.source).layers)
        measuring, found = layers * (3 + 1.25 * 2 * 10), job.estimate_seconds()
        assert measuring < found < 5 * measuring
        monkeypatch.setattr(gptq, "SWEEPS", 2 * gptq.SWEEPS)
        assert job.estimate_seconds() > found  # more to be done for what is measured alike


@pytest.mark.unsanitized
def test_efforts(source: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    expected = fed(source, text, tmp_path / "gptq.gguf").read_bytes()
    quantize(source, out, TYPE, effort="balanced", calibration=text)
    assert out.read_bytes() == expected
    quantize(source, out, TYPE)
    plain = out.read_bytes()
    assert plain != expected
    quantize(source, out, TYPE, effort="fast")
    assert out.read_bytes() == plain
    quantize(source, out, TYPE, effort="balanced", quantizer="rtn")
    assert out.read_bytes() == plain
    with pytest.raises(UsageError, match="no quantizer is named 'best': expected one of rtn, gptq"):
        quantize(source, out, TYPE, quantizer="best")
    with pytest.raises(UsageError, match="no effort is named 'huge': expected one of fast"):
        quantize(source, out, TYPE, effort="huge")


def test_experts_each_on_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no token goes to is rounded to nearest, all its columns alike."""
    weights = small_model.mixture()
    for index in range(small_model.LAYERS):  # logits s, -s, 0, 0: the last is never chosen
        weights[f"blk.{index}.ffn_gate_inp.weight"][:] = np.array([[1], [-1], [0], [0]])
    path = small_model.write(tmp_path / "m.gguf", weights, "f32", small_model.MIXTURE_KEYS)
    random = np.random.default_rng(1)
    tokens = random.integers(0, small_model.VOCAB, (4, 48)).astype(np.int32)
    monkeypatch.setattr(calibrate, "data", lambda *args, **options: Data(tokens, ()))
    name = "blk.0.ffn_down_exps.weight"
    written: dict[str, NDArray[np.uint8]] = {}
    with closing(open_source(path)) as source:
        info = TensorInfo(name, source.tensors[name].shape, formats.get("q4_k"))
        transcoder = Transcoder(path, rtn.quantize)
        for made, data in Feedback(path).rounded(
            source, [info], transcoder, lambda info: written.get(info.name), tmp_path / "m"
        ):
            written[made] = data
        stack = source.tensors[name].decode()
        inputs = next(iter(walk(source, tokens, gram=True, sinks=SINKS))).of(name)
    assert list(written) == [name] and inputs.unseen == [3] and inputs.gram is not None
    for expert, data in enumerate(written[name].reshape(small_model.EXPERTS, -1, info.row_bytes)):
        expected = rtn.quantize(stack[expert], "q4_k", inputs.means[expert])
        if expert != 3:
            hessian = gptq.hessian(inputs.gram[expert], int(inputs.counts[expert]), 256)
            expected = gptq.choose(stack[expert], "q4_k", hessian, expected).data
        assert np.array_equal(data, expected)


@pytest.mark.unsanitized
def test_a_weight_that_is_no_number(source: Path, text: Path, tmp_path: Path) -> None:
    name, broken = "blk.1.ffn_down.weight", tmp_path / "broken.gguf"
    with gguf.open(source) as file:
        spoiled = np.array(file.tensors[name].data)
        spoiled.view("<f2")[3, 5] = np.nan
        tensors = [
            gguf.Tensor(t.name, t.shape, t.format, spoiled if t.name == name else t.data)
            for t in file.tensors.values()
        ]
        gguf.write(broken, dict(file.values), tensors)
    with pytest.raises(InvalidFileError, match=rf"{name}.*got nan"):
        fed(broken, text, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("out.gguf*"))


@pytest.mark.unsanitized
def test_spread() -> None:
    tokens = np.arange(70, dtype=np.int32).reshape(10, 7)
    assert spread(tokens, 10) is tokens and spread(tokens, 64) is tokens
    assert spread(tokens, 4)[:, 0].tolist() == [0, 14, 35, 49]
