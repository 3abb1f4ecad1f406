"""Random weights: every type, sensible values, valid files, equal bytes; llama.cpp loads them."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trit
from trit import archs, formats, recipe
from trit.convert import convert
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, UnsupportedError, UsageError
from trit.files import checkpoint, gguf
from trit.files.gguf import Writer
from trit.synth import synth
from trit.synth.shapes import SHAPES, custom

TINY = custom(layers=2, width=256, heads=4, kv_heads=2, ffn=512, vocab=300)
# Half of a block's spread is a matter of its own scale, of which a row of this test has few.
SPREAD = 0.25
# The mean of a grid whose codes are not centred, in its own spread: -8 … 7, -16 … 15, -1 … 2 and
# IQ4_NL's levels; 2^17 weights of 256 runs each add less than MEAN.
LEAN = {"q4_0": 0.108, "q5_0": 0.054, "q2_0": 0.447, "iq4_nl": 0.09}
MEAN = 0.02
# Every format has random blocks but this one, whose four scales would have to fit at once.
NOT_DRAWN = {"nvfp4"}
TOKENS = [5, 200, 31, 7]


def last_logits(path: Path) -> np.ndarray:
    with checkpoint.open(path) as source:
        engine = Engine(archs.plan(source), source.tensors, threads=2, ctx=16)
        return np.array(engine.forward(Rows.of(TOKENS))[-1])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", sorted(set(formats.all()) - NOT_DRAWN))
def test_every_format(name: str, tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    result = synth(TINY, out, name, pure=True)
    assert result.bytes == out.stat().st_size
    with gguf.open(out) as file:
        kinds = {t.format.name for t in file.tensors.values() if len(t.shape) > 1}
        assert kinds == {name}
        for tensor in file.tensors.values():
            tensor.check_weights(out)
        weights = file["blk.1.ffn_down.weight"].decode() * math.sqrt(512)
        assert abs(weights.mean()) < LEAN.get(name, 0) + MEAN
        assert abs(weights.std() - 1) < SPREAD
    logits = last_logits(out)
    assert np.isfinite(logits).all() and logits.std() > 0


def test_a_format_that_no_random_block_fits(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="nvfp4"):
        synth(TINY, tmp_path / "model.gguf", "NVFP4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_its_mix(shape: str, tmp_path: Path) -> None:
    """With two of its layers and a smaller vocabulary; the recipe is asked once more."""
    out = tmp_path / "model.gguf"
    small = replace(SHAPES[shape], layers=2, vocab=512)
    result = synth(small, out, "Q4_K_M")
    with gguf.open(out) as file:
        weights = [
            recipe.Weight(t.name, t.shape, "f32" if len(t.shape) == 1 else "f16")
            for t in file.tensors.values()
        ]
        expected = {c.name: c.format for c in recipe.choose("Q4_K_M", file.metadata, weights)}
        assert {t.name: t.format.name for t in file.tensors.values()} == expected
        assert file.metadata["general.file_type"] == 15
    assert result.weights == sum(math.prod(weight.shape) for weight in weights)
    assert np.isfinite(last_logits(out)).all()


@pytest.mark.parametrize(
    ("shape", "parameters"),
    # As the model cards count them, in the tensors of a GGUF.
    [("llama-3.2-1b", 1_235_814_432), ("llama-3-8b", 8_030_261_248), ("qwen2.5-0.5b", 494_032_768)],
)
def test_sizes_are_the_models_own(shape: str, parameters: int) -> None:
    _, extra = SHAPES[shape].keys()
    sizes = [*SHAPES[shape].tensors().values(), *(array.shape for array in extra.values())]
    assert sum(math.prod(size) for size in sizes) == parameters


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synth(TINY, tmp_path / name, "Q3_K_M", seed=seed)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b") != sha256(tmp_path / "c")


def test_bytes_are_the_same_everywhere(tmp_path: Path) -> None:
    """The digest of one file, so that a change of numpy or of this module shows."""
    out = tmp_path / "model.gguf"
    synth(TINY, out, "Q4_K_M", seed=7)
    with gguf.open(out) as file:
        digest = hashlib.sha256()
        for tensor in file.tensors.values():
            digest.update(tensor.data.tobytes())
    assert digest.hexdigest() == "e528796a96ea54395490062b0ad190b4c3dce8b3e35b467a7f7deb5c5165d73c"


def test_it_says_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    synth(TINY, out, "TQ2_0", seed=3)
    with gguf.open(out) as file:
        about = {key: value for key, value in file.metadata.items() if "synth" in key}
        assert about == {
            "trit.synth.shape": "custom", "trit.synth.type": "TQ2_0", "trit.synth.seed": 3,
        }  # fmt: skip
        assert "random weights" in str(file.metadata["general.name"])


def test_bitnet_says_what_it_leaves_out(tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    synth(replace(SHAPES["bitnet-2b"], layers=1, vocab=512), out, "TQ1_0")
    with gguf.open(out) as file:
        assert file.metadata["general.architecture"] == "llama"
        assert "squared ReLU" in str(file.metadata["general.description"])
        assert file["blk.0.ffn_down.weight"].format.name == "tq1_0"
        assert file["token_embd.weight"].format.name == "q6_k"


def test_text_goes_through(tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    synth(TINY, out, "Q8_0")
    with trit.load(out, ctx=64) as model:
        text = "So ä w! w  wörds\n"
        ids = model.tokenizer.encode(text, add_special=False)
        assert model.tokenizer.decode(ids) == text
        assert model.generate(text, max_tokens=4, temperature=0).stats.tokens > 0


def test_llama_cpp_loads_it(tmp_path: Path) -> None:
    """The same tokens and, but for rounding, the same logits."""
    llama_cpp = pytest.importorskip("llama_cpp")
    out = tmp_path / "model.gguf"
    synth(TINY, out, "Q8_0")
    theirs = llama_cpp.Llama(str(out), n_ctx=64, n_threads=2, verbose=False, logits_all=True)
    with trit.load(out, ctx=64) as model:
        text = "Hello w world"
        assert theirs.tokenize(text.encode()) == model.tokenizer.encode(text)
    theirs.eval(TOKENS)
    logits = np.array(theirs.scores[len(TOKENS) - 1])
    assert np.corrcoef(logits, last_logits(out))[0, 1] > 0.99


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 0}, "--heads 0"),
        ({"kv_heads": 3}, "--kv-heads 3: expected a divisor"),
        ({"width": 260, "heads": 8}, "--width 260"),
        ({"vocab": 100}, "--vocab 100"),
    ],
)
def test_sizes_that_make_no_model(change: dict[str, int], said: str, tmp_path: Path) -> None:
    sizes = {"layers": 1, "width": 256, "heads": 4, "ffn": 512, "vocab": 300} | change
    with pytest.raises(UsageError, match=said):
        synth(custom(**sizes), tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "type_", "seed", "said"),
    [
        ("llama-9", "Q8_0", 0, "no shape is called 'llama-9'"),
        ("llama-3.2-1b", "Q9_9", 0, "unknown type 'Q9_9'"),
        ("llama-3.2-1b", "Q8_0", -1, "--seed -1"),
    ],
)
def test_wrong_words(shape: str, type_: str, seed: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        synth(shape, tmp_path / "model.gguf", type_, seed=seed)


def test_space_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(DoesNotFitError, match="free"):
        synth("llama-3-8b", tmp_path / "model.gguf", "Q4_K_M")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.gguf"
    out.write_bytes(b"old")
    add = Writer.add

    def fail(self: Writer, name: str, data: object) -> None:
        if name.startswith("blk.1"):
            raise KeyboardInterrupt
        add(self, name, data)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "add", fail)
    with pytest.raises(KeyboardInterrupt):
        synth(TINY, out, "Q8_0")
    assert out.read_bytes() == b"old" and list(tmp_path.iterdir()) == [out]


def test_progress_counts_bytes(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = synth(TINY, tmp_path / "m.gguf", on_progress=lambda *each: seen.append(each))
    assert seen[-1] == ("writing", 2 * result.tensor_bytes, 2 * result.tensor_bytes)


def test_an_odd_row_falls_back_and_converts(tmp_path: Path) -> None:
    shape = custom(layers=1, width=96, heads=2, ffn=160, vocab=300)
    result = synth(shape, tmp_path / "m.gguf", "Q4_K_M")
    assert {t.format for t in result.fallbacks} == {"q5_0", "q8_0"}
    convert(tmp_path / "m.gguf", tmp_path / "f16.gguf", "f16")
    assert np.isfinite(last_logits(tmp_path / "f16.gguf")).all()
