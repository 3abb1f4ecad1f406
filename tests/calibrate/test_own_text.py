"""Without a file: trit's passages, and text that the model writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import talking_model
from trit.calibrate import _sampled, data
from trit.calibrate._data import PASSAGES, openings, passages
from trit.files import checkpoint

CTX = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def test_the_passages_say_where_they_are_from() -> None:
    head, _, rest = PASSAGES.read_text(encoding="utf-8").partition("\n%% ")
    assert "Provenance" in head and "public domain" in head
    parts, about = passages()
    assert len(parts) == rest.count("\n%% ") + 1 >= 20
    assert about.bytes == PASSAGES.stat().st_size <= 150_000
    assert not any("%%" in part or "Provenance" in part for part in parts)
    assert all(0 < len(each) <= 60 for each in openings(parts))


def test_the_model_writes_the_same_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampled, "LENGTH", 128)
    seen: list[tuple[str, int, int]] = []
    with checkpoint.open(model) as file:
        first = data(file, ctx=CTX, threads=1, on_progress=lambda *event: seen.append(event))
        again = data(file, ctx=CTX, threads=2)
        alone = data(file, "\n\n".join(passages()[0]), ctx=CTX)
    assert first.notes == again.notes == ()  # nothing failed: what is left out changes the text
    assert np.array_equal(first.tokens, again.tokens) and first.texts == again.texts
    assert [text.name for text in first.texts] == ["trit's passages", "text of the model's own"]
    # The passages come first, then up to sixteen texts of 128 tokens and their ends.
    assert np.array_equal(first.tokens[: len(alone.tokens)], alone.tokens)
    own = first.tokens.size - alone.tokens.size
    assert 4 * 128 < own <= 16 * 129 + CTX
    assert talking_model.START in first.tokens[len(alone.tokens) :]  # through the template
    assert seen[-1][1] == seen[-1][2] and {what for what, _, _ in seen} == {
        "writing text to measure on"
    }


def test_nothing_is_written_that_is_not_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampled, "_write", None)
    with checkpoint.open(model) as file:
        assert len(data(file, ctx=CTX, chunks=5).tokens) == 5


def test_a_model_beyond_memory_writes_nothing_and_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trit.calibrate._sampled.free_memory", lambda: 1000)
    with checkpoint.open(model) as file:
        found = data(file, ctx=CTX)
    assert [text.name for text in found.texts] == ["trit's passages"]
    assert len(found.notes) == 1 and "writes no text of its own" in found.notes[0]


def test_a_template_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampled, "LENGTH", 80)
    broken = {"tokenizer.chat_template": "{{ raise_exception('no') }}"}
    path = talking_model.write(tmp_path / "model.gguf", broken)
    with checkpoint.open(path) as file:
        found = data(file, ctx=CTX)
    assert len(found.texts) == 2 and "chat template fails" in found.notes[0]
