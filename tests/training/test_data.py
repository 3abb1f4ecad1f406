"""Texts, what is held out of them, and which sequences a step reads."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import tiny_run
from trit.errors import InvalidFileError, UsageError
from trit.training import config as configs
from trit.training import data as datas
from trit.training import tokenizer as tokenizers

library = pytest.importorskip("tokenizers", reason="training a tokenizer needs it (extra train)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The essay's tokenizer and packed tokens."""
    folder = tmp_path_factory.mktemp("data")
    config = configs.load(tiny_run.write(folder)).data
    texts = datas.read(config, folder)
    tokenizers.train([text.train for text in texts], 300, folder)
    datas.pack(texts, config, tokenizers.load(folder)[0], folder)
    return folder


def test_ids_are_those_of_the_library(folder: Path) -> None:
    tokenizer, ids = tokenizers.load(folder)
    text = tiny_run.ESSAY.read_text("utf-8") + " naïve 12345 \U0001f600\n\n  x"
    oracle = library.Tokenizer.from_file(str(folder / tokenizers.FILE))
    assert tokenizer.encode(text) == oracle.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
    assert tokenizer.vocab_size == 300 and ids == {"bos_token_id": 0, "eos_token_id": 0}
    assert tokenizer.encode(tokenizers.END, parse_special=False) != [0, 0]


def test_packing_keeps_every_byte(folder: Path) -> None:
    tokenizer, _ = tokenizers.load(folder)
    packed = datas.Packed(folder, tokenizer, 32)
    text = tiny_run.ESSAY.read_text("utf-8")
    parts = [
        tokenizer.decode(part.tolist(), skip_special=True)
        for part in (packed.train, packed.held_out)
    ]
    assert text.startswith(parts[0]) and text.rstrip().endswith(parts[1])
    assert 0.05 < len(parts[1]) / len(text) < 0.25
    for part, tokens, content in zip(
        datas.PARTS, (packed.train, packed.held_out), parts, strict=True
    ):
        assert packed.about[part]["tokens"] == len(tokens)
        assert packed.about[part]["bytes"] == len(content.encode())
        assert tokens[0] == 0 and (tokens[1:] != 0).all()


def test_documents_are_kept_apart(tmp_path: Path) -> None:
    config = configs.Data(files=(Path("t"),), separator="<sep>", held_out=0.4)
    (tmp_path / "t").write_text("one two<sep>\n\n<sep>three four<sep>five six seven")
    (text,) = datas.read(config, tmp_path)
    assert (text.train, text.held_out) == ("one two<sep>\n\n<sep>", "three four<sep>five six seven")
    assert list(datas.documents(text.train, "<sep>")) == ["one two"]
    tokenizers.train(["one two three"], 270, tmp_path)
    datas.pack([text], config, tokenizers.load(tmp_path)[0], tmp_path)
    parts = [np.fromfile(tmp_path / f"{part}.bin", "<u4") for part in datas.PARTS]
    assert [(part == 0).sum() for part in parts] == [1, 2]


def test_a_pass_reads_every_sequence_once(folder: Path) -> None:
    packed = datas.Packed(folder, tokenizers.load(folder)[0], 32)
    count = packed.sequences
    seen = [packed.batch(7, step, 1)[0] for step in range(2 * count)]
    assert all(len(row) == 33 for row in seen)
    starts = [{row[:-1].tobytes() for row in part} for part in (seen[:count], seen[count:])]
    assert len(starts[0]) == len(starts[1]) == count
    assert starts[0] != starts[1]
    again = datas.Packed(folder, tokenizers.load(folder)[0], 32)
    assert np.array_equal(again.batch(7, count // 2, 2), packed.batch(7, count // 2, 2))
    assert not np.array_equal(packed.batch(7, 0, 4), packed.batch(8, 0, 4))


def test_windows_held_out(folder: Path) -> None:
    packed = datas.Packed(folder, tokenizers.load(folder)[0], 32)
    whole = list(packed.windows(None))
    few = list(packed.windows(3))
    assert len(few) == 3 and len(whole) == (len(packed.held_out) - 1) // 32
    assert all(any(np.array_equal(each, other) for other in whole) for each in few)
    # What one window predicts last, the next reads first: every token but the first is scored.
    assert all(a[-1] == b[0] for a, b in itertools.pairwise(whole))


def test_what_is_wrong_is_said(folder: Path, tmp_path: Path) -> None:
    tokenizer, _ = tokenizers.load(folder)
    with pytest.raises(UsageError, match=r"tokens to held out, expected 1501 or more"):
        datas.Packed(folder, tokenizer, 1500)
    with pytest.raises(InvalidFileError, match="expected a file of UTF-8 text"):
        datas.read(configs.Data(files=(Path("none.txt"),)), tmp_path)
    with pytest.raises(InvalidFileError, match="expected a tokenizer"):
        tokenizers.adopt(tmp_path / "none.json", tmp_path)
    for name in (tokenizers.FILE, tokenizers.SETTINGS, datas.ABOUT, "held_out.bin"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "train.bin").write_bytes(b"\0" * 8)
    with pytest.raises(InvalidFileError, match=r"train.bin: is not what data.json says"):
        datas.Packed(tmp_path, tokenizer, 8)


def test_a_tokenizer_that_is_given(folder: Path, tmp_path: Path) -> None:
    tokenizers.adopt(folder / tokenizers.FILE, tmp_path)
    assert tokenizers.load(tmp_path)[1] == {"bos_token_id": 0, "eos_token_id": 0}
    found = json.loads((tmp_path / tokenizers.FILE).read_text("utf-8"))
    found["post_processor"] = None
    (tmp_path / tokenizers.FILE).write_text(json.dumps(found))
    (tmp_path / tokenizers.SETTINGS).write_text("{}")
    with pytest.raises(UsageError, match="no token ends a document"):
        tokenizers.load(tmp_path)
