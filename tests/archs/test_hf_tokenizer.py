"""Tokenizer files → tokenizer.* keys: both kinds, the pre-tokenizers, and files that lie."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from tiny import byte_tokenizer

from trit.errors import InvalidFileError, UnsupportedError
from trit.files import _sentencepiece, checkpoint
from trit.files._hf_general import front_matter, size_label
from trit.files._hf_pretokenizer import pre_name
from trit.files._hf_tokenizer import tokenizer_keys

ROWS = 280
Json = dict[str, Any]


def keys(folder: Path, arch: str = "llama", rows: int = ROWS) -> Json:
    return tokenizer_keys(folder, {"eos_token_id": [2, 7], "bos_token_id": 1}, arch, rows)


def edit(folder: Path, change: Callable[[Json], None], file: str = "tokenizer.json") -> None:
    """Change a JSON file in place."""
    value = json.loads((folder / file).read_text())
    change(value)
    (folder / file).write_text(json.dumps(value))


def test_no_files_no_keys(tmp_path: Path) -> None:
    assert keys(tmp_path) == {}


def test_byte_level_keys(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    found = keys(tmp_path)
    assert found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    assert len(found["tokenizer.ggml.tokens"]) == ROWS
    assert found["tokenizer.ggml.tokens"][:3] == ["<pad>", "<s>", "</s>"]
    assert found["tokenizer.ggml.tokens"][-1] == f"[PAD{ROWS - 1}]"
    types = found["tokenizer.ggml.token_type"]
    assert types.dtype == np.int32
    assert [types[0], types[5], types[-1]] == [3, 1, 5]
    assert found["tokenizer.ggml.merges"][4] == "Ġ the"
    assert found["tokenizer.ggml.bos_token_id"] == 1
    assert found["tokenizer.ggml.eos_token_id"] == 2
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert "{% for" in found["tokenizer.chat_template"]


def test_merges_of_both_spellings(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    before = keys(tmp_path)["tokenizer.ggml.merges"]
    edit(tmp_path, lambda t: t["model"].update(merges=before))
    assert keys(tmp_path)["tokenizer.ggml.merges"] == before


def test_templates_by_name_and_from_their_own_file(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    several = [{"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
    edit(tmp_path, lambda t: t.update(chat_template=several), "tokenizer_config.json")
    found = keys(tmp_path)
    assert found["tokenizer.chat_template"] == "a"
    assert found["tokenizer.chat_template.tool_use"] == "b"
    assert found["tokenizer.chat_templates"] == ["tool_use"]
    edit(tmp_path, lambda t: t.pop("chat_template"), "tokenizer_config.json")
    (tmp_path / "chat_template.jinja").write_text("c")
    assert keys(tmp_path)["tokenizer.chat_template"] == "c"


def set_id(text: str, id: object) -> Callable[[Json], None]:
    return lambda tokenizer: tokenizer["model"]["vocab"].update({text: id})


def set_merge(merge: object) -> Callable[[Json], None]:
    return lambda tokenizer: tokenizer["model"]["merges"].append(merge)


def set_added(**fields: object) -> Callable[[Json], None]:
    return lambda tokenizer: tokenizer["added_tokens"].append(fields)


HOSTILE: list[tuple[Callable[[Json], None], str]] = [
    (set_id("the", -1), "-1"),
    (set_id("the", 2**31), "2147483648"),
    (set_id("the", 1.0), "1.0"),
    (set_id("the", True), "True"),
    (set_id("the", ROWS), f"{ROWS}"),
    (set_id("the", ROWS - 1), "gaps"),
    (lambda t: t["model"].update(vocab={}), "vocab"),
    (lambda t: t["model"].update(vocab=["a"]), "vocab"),
    (lambda t: t["model"].update(merges="t h"), "merges"),
    (set_merge(["t", "h", "e"]), "merge 6"),
    (set_merge("t  h"), "merge 6"),
    (set_merge(["t", 3]), "merge 6"),
    (set_merge(["the", "the"]), "merge 6"),
    (set_merge(["t" * 100_000, "h"]), "merge 6"),
    (set_added(id=-1, content="x"), "-1"),
    (set_added(id=2**31, content="x"), "2147483648"),
    (set_added(id=5), "content"),
    (lambda t: t.update(added_tokens="x"), "added_tokens"),
]


@pytest.mark.parametrize(("change", "names"), HOSTILE)
def test_hostile_tokenizer_json(change: Callable[[Json], None], names: str, tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    edit(tmp_path, change)
    with pytest.raises(InvalidFileError, match=names):
        keys(tmp_path)


def test_a_large_vocabulary_takes_time_in_proportion(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    count = 150_000

    def grow(tokenizer: Json) -> None:
        vocab, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
        letters = [text for text in vocab if len(text) == 1]
        for left in [*letters, *(a + b for a in letters for b in letters)]:
            for right in letters:
                if len(vocab) < count and left + right not in vocab:
                    vocab[left + right] = len(vocab)
                    merges.append([left, right])

    edit(tmp_path, grow)
    start = time.process_time()
    assert len(keys(tmp_path, rows=count)["tokenizer.ggml.tokens"]) == count
    assert time.process_time() - start < 5  # half a second on an idle machine


def test_fewer_rows_than_tokens(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    with pytest.raises(InvalidFileError, match="the embedding has 200 rows"):
        keys(tmp_path, rows=200)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ROWS)
    edit(tmp_path, lambda t: t["model"].update(type="Unigram"))
    with pytest.raises(UnsupportedError, match="Unigram"):
        keys(tmp_path)


def test_the_folder_carries_its_tokenizer(tmp_path: Path) -> None:
    tensors = folders.weights()
    tensors["model.embed_tokens.weight"] = np.zeros((ROWS, folders.WIDTH), dtype=np.float32)
    folders.write(tmp_path, folders.CONFIG | {"vocab_size": ROWS}, tensors)
    byte_tokenizer(tmp_path, ROWS)
    with checkpoint.open(tmp_path) as model:
        assert len(model.metadata["tokenizer.ggml.tokens"]) == ROWS  # type: ignore[arg-type]


BYTES = {"type": "ByteLevel", "use_regex": False}
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"


def split(regex: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}


def sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@pytest.mark.parametrize(
    ("steps", "ignore_merges", "name"),
    [
        (sequence(split(HEAD + r"\p{N}{1,3}" + TAIL), BYTES), True, "llama-bpe"),
        (sequence(split(HEAD + r"\p{N}{1,3}" + TAIL), BYTES), False, "dbrx"),
        (sequence(split(HEAD + r"\p{N}" + TAIL), BYTES), False, "qwen2"),
        (
            sequence(
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "use_regex": True},
            ),
            False,
            "smollm",
        ),
        ({"type": "ByteLevel", "use_regex": True}, False, "gpt-2"),
    ],
)
def test_pre_tokenizers_by_shape(steps: Json, ignore_merges: bool, name: str) -> None:
    tokenizer = {"pre_tokenizer": steps, "model": {"ignore_merges": ignore_merges}}
    assert pre_name(tokenizer, "tokenizer.json") == name


@pytest.mark.parametrize("steps", [None, BYTES, sequence(split("x"), BYTES), sequence(), "x"])
def test_unknown_pre_tokenizers_are_refused(steps: Any) -> None:
    with pytest.raises(UnsupportedError, match="pre-tokenizer"):
        pre_name({"pre_tokenizer": steps, "model": {}}, "tokenizer.json")


def spm_json() -> Json:
    """A tokenizer.json as transformers makes it from a SentencePiece model."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    texts += ["▁", "a", "b", "ab", "▁a", "▁ab"]
    return {
        "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {text: id for id, text in enumerate(texts)},
            "merges": [["a", "b"], ["▁", "ab"], ["▁", "a"]],
        },
    }


def test_scores_come_from_the_order_of_merges(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(spm_json()))
    found = keys(tmp_path)
    assert found["tokenizer.ggml.model"] == "llama"
    scores = dict(zip(found["tokenizer.ggml.tokens"], found["tokenizer.ggml.scores"], strict=True))
    assert scores["ab"] > scores["▁ab"] > scores["▁a"]
    types = found["tokenizer.ggml.token_type"]
    assert list(types[:4]) == [2, 3, 1, 6]
    assert "tokenizer.ggml.add_space_prefix" not in found


def test_no_space_before_the_text_where_the_normalizer_puts_none(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(spm_json())
    tokenizer["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert keys(tmp_path)["tokenizer.ggml.add_space_prefix"] is False


def test_sentencepiece_files_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece", reason="the oracle (dev extra)")
    from sentencepiece_model import train

    train(tmp_path, 600)
    processor = library.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    pieces = _sentencepiece.read(tmp_path / "tokenizer.model")
    assert len(pieces) == processor.vocab_size()
    for id, piece in enumerate(pieces):
        assert piece.text == processor.id_to_piece(id)
        assert piece.score == pytest.approx(processor.get_score(id))
        assert (piece.type == _sentencepiece.UNKNOWN) == processor.is_unknown(id)
        assert (piece.type == _sentencepiece.CONTROL) == processor.is_control(id)
        assert (piece.type == _sentencepiece.BYTE) == processor.is_byte(id)


def test_cut_or_changed_sentencepiece_files_raise_typed_errors(tmp_path: Path) -> None:
    good = tmp_path / "tokenizer.model"
    piece = b"\x0a\x03\xe2\x96\x81\x15\x00\x00\x80\xbf\x18\x01"
    data = b"".join(b"\x0a" + bytes([len(piece)]) + piece for _ in range(3)) + b"\x12\x02\x18\x02"
    good.write_bytes(data)
    assert [each.score for each in _sentencepiece.read(good)] == [-1.0] * 3
    accepted = 0
    random = np.random.default_rng(0)
    for i in range(400):
        raw = bytearray(data[: i % len(data)] if i < len(data) else data)
        if i >= len(data):
            raw[random.integers(len(raw))] = random.integers(256)
        good.write_bytes(raw)
        try:
            _sentencepiece.read(good)
            accepted += 1
        except (InvalidFileError, UnsupportedError):
            pass
    assert 0 < accepted < 400


def test_size_labels() -> None:
    counts = (134_515_008, 1_777_088_000, 7_200, 999, 70_553_706_496, 1_500_000_000_000)
    assert [size_label(count) for count in counts] == [
        "135M",
        "1.8B",
        "7.2K",
        "1.0K",
        "71B",
        "1.5T",
    ]


def test_front_matter() -> None:
    text = "---\nlicense: mit\ntags:\n- a\n- 'b c'\nlanguage: [en, de]\nmodel:\n  - x: 1\n---\n# A"
    found = front_matter(text)
    assert found == {
        "license": ["mit"],
        "tags": ["a", "b c"],
        "language": ["en", "de"],
        "model": [],
    }
    assert front_matter("# no front matter") == {}
    assert front_matter("---\nlicense: mit") == {}
