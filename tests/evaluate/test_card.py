"""The quality card: its figures are those of `evaluate`, and only its own bytes change."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import small_model
import text_model
import trit
from trit.calibrate._data import passages
from trit.errors import InvalidFileError, TritError
from trit.evaluate import card, evaluate
from trit.files import gguf


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def carded(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "q4.gguf"
    trit.quantize(source, out, "Q4_K_M", card=True)
    return out


def read(path: Path) -> card.Card | None:
    with gguf.open(path) as file:
        return card.read(file.metadata, list(file.tensors))


def test_figures(source: Path, carded: Path) -> None:
    got = read(carded)
    assert got is not None
    text = card.TEXT.read_text(encoding="utf-8").partition("\n%%\n")[2]
    expected = evaluate(carded, text, source, ctx=128)
    found = expected.divergence
    assert found is not None
    assert (got.ctx, got.tokens) == (128, expected.tokens)
    assert (got.kld.mean, got.kld.stderr) == (found.kld.mean, found.kld.stderr)
    assert (got.ppl, got.ppl_source, got.same_top) == (expected.ppl, found.base, found.same_top)
    assert got.kld.mean > 0


def test_tensor_errors(source: Path, carded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = read(carded)
    assert got is not None
    with gguf.open(source) as file, gguf.open(carded) as other:
        assert list(got.tensors) == list(other.tensors)
        for name, error in got.tensors.items():
            w, rounded = (each[name].decode().astype(np.float64) for each in (file, other))
            expected = np.linalg.norm(rounded - w) / np.linalg.norm(w)
            assert error == pytest.approx(expected, rel=1e-5)
            assert (error > 0) == (other[name].format is not file[name].format)
    monkeypatch.setattr(card, "SLAB_WEIGHTS", 1000)
    again = card.tensor_errors(carded, source, threads=3)
    assert again == pytest.approx(dict(got.tensors), rel=1e-6)


def test_only_the_card_changes(source: Path, carded: Path, tmp_path: Path) -> None:
    copy = shutil.copy(carded, tmp_path / "copy.gguf")
    measured = read(carded)
    assert measured is not None
    with gguf.open(copy) as file:
        names = list(file.tensors)
    none = card.blank(names)
    blank = card.Card(
        measured.text_sha256, 0, 0, *[card.Estimate(math.nan, math.nan)] * 4,
        tensors=dict.fromkeys(names, math.nan),
    )  # fmt: skip
    card.write(copy, blank)
    assert read(copy) is None
    with gguf.open(copy) as file:
        assert {key for key in file.values if key.startswith(card.PREFIX)} == set(none)
    before, after = (np.frombuffer(p.read_bytes(), np.uint8) for p in (carded, Path(copy)))
    changed = np.flatnonzero(before != after)
    start = carded.read_bytes().index(b"trit.card.")
    assert len(changed) and start < changed[0] and changed[-1] < start + 1200
    card.write(copy, measured)
    assert Path(copy).read_bytes() == carded.read_bytes()


def test_a_file_without_room(source: Path, carded: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.gguf"
    trit.quantize(source, plain, "Q4_K_M")
    before = plain.read_bytes()
    measured = read(carded)
    assert measured is not None and read(plain) is None
    with pytest.raises(InvalidFileError, match="--card leaves"):
        card.write(plain, measured)
    assert plain.read_bytes() == before


def test_a_card_is_not_handed_on(carded: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.gguf"
    trit.quantize(carded, out, "Q4_0")
    with gguf.open(out) as file:
        assert not [key for key in file.values if key.startswith(card.PREFIX)]


def test_what_cannot_be_measured_shows_at_once(tmp_path: Path) -> None:
    tokens = {"tokenizer.ggml.model": "unheard-of"}
    path = small_model.write(tmp_path / "m.gguf", small_model.arrays(), extra=tokens)
    with pytest.raises(TritError, match="unheard-of"):
        trit.quantize(path, tmp_path / "out.gguf", "Q4_0", card=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_other_tensors_are_no_source(carded: Path, tmp_path: Path) -> None:
    other = small_model.write(tmp_path / "other.gguf", small_model.arrays())
    with pytest.raises(InvalidFileError, match=r"token_embd.weight.*\(258, 256\).*\(64, 256\)"):
        card.tensor_errors(carded, other)


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokens", 0), ("tokens", "many"), ("kld", float("nan")), ("tensor_errors", [1.0])],
)
def test_a_damaged_card_is_none(carded: Path, key: str, value: object) -> None:
    with gguf.open(carded) as file:
        keys = {**file.metadata, card.PREFIX + key: value}
        assert card.read(file.metadata, list(file.tensors)) is not None
        assert card.read(keys, list(file.tensors)) is None


def test_the_text_is_no_calibration_text() -> None:
    text = card.TEXT.read_text(encoding="utf-8")
    shared = {line for part in passages()[0] for line in part.splitlines() if len(line) > 20}
    assert not shared & set(text.splitlines())
