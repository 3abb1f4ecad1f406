"""Vocabularies that must be rejected, each with an error that names the key, in under a second."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_vocabularies import BYTE, byte_pair, sentencepiece, tokenizer_json, write_hf_folder

from trit.errors import InvalidFileError, TritError, UnsupportedError
from trit.runtime.tokenizer import Tokenizer

P = "tokenizer.ggml."
Keys = dict[str, Any]
Change = Callable[[Keys], object]


def put(key: str, value: object) -> Change:
    return lambda keys: keys.update({P + key: value})


def without(key: str) -> Change:
    return lambda keys: keys.pop(P + key)


def token(index: int, text: str, kind: int | None = None) -> Change:
    def change(keys: Keys) -> None:
        keys[P + "tokens"][index] = text
        if kind is not None:
            keys[P + "token_type"][index] = kind

    return change


def merge(text: str) -> Change:
    return lambda keys: keys[P + "merges"].append(text)


SCORES = sentencepiece()[P + "scores"]
TYPES = byte_pair()[P + "token_type"]
COUNT = len(TYPES)
BYTE_PAIR: dict[str, tuple[Change, str]] = {
    "no tokens": (put("tokens", []), "tokens"),
    "tokens missing": (without("tokens"), "tokens"),
    "tokens a string": (put("tokens", "abc"), "tokens"),
    "tokens are numbers": (put("tokens", np.arange(9)), "tokens"),
    "model missing": (without("model"), "model"),
    "model a number": (put("model", 3), "model"),
    "pre a number": (put("pre", 3), "pre"),
    "types too short": (put("token_type", TYPES[:-1]), "token_type"),
    "types too long": (put("token_type", np.append(TYPES, TYPES[-1:])), "token_type"),
    "types of int64": (put("token_type", TYPES.astype(np.int64)), "token_type"),
    "types of floats": (put("token_type", TYPES.astype(np.float32)), "token_type"),
    "types one number": (put("token_type", 1), "token_type"),
    "types in two dimensions": (put("token_type", TYPES[:, None]), "token_type"),
    "merges missing": (without("merges"), "merges"),
    "merges of numbers": (put("merges", [1, 2]), "merges"),
    "merge outside the vocabulary": (merge("a zz"), "merges"),
    "merge with an unknown result": (merge("z q"), "merges"),
    "merge of one word": (merge("abc"), "merges"),
    "merge of nothing": (merge(""), "merges"),
    "merge longer than any token": (merge("a" * 5000 + " " + "b" * 5000), "merges"),
    "the same token twice": (token(70, "A"), "tokens"),
    "a token of 1 MB": (token(70, "x" * 1_000_000), "tokens"),
    "bos beyond the vocabulary": (put("bos_token_id", COUNT), "bos_token_id"),
    "eos beyond the vocabulary": (put("eos_token_id", 2**32 - 2), "eos_token_id"),
    "pad beyond the vocabulary": (put("padding_token_id", COUNT), "padding_token_id"),
    "fim beyond the vocabulary": (put("fim_pre_token_id", COUNT), "fim_pre_token_id"),
    "bos negative": (put("bos_token_id", -1), "bos_token_id"),
    "bos a string": (put("bos_token_id", "1"), "bos_token_id"),
    "bos a bool": (put("bos_token_id", True), "bos_token_id"),
    "add_bos a number": (put("add_bos_token", 1), "add_bos_token"),
    "byte with a sign": (token(70, "<0x-1>", BYTE), "tokens"),
    "byte that is not hexadecimal": (token(70, "<0xZZ>", BYTE), "tokens"),
    "byte too long": (token(70, "<0x041>", BYTE), "tokens"),
}
SENTENCEPIECE: dict[str, tuple[Change, str]] = {
    "scores missing": (without("scores"), "scores"),
    "scores too short": (put("scores", SCORES[:-1]), "scores"),
    "scores too long": (put("scores", np.append(SCORES, SCORES[-1:])), "scores"),
    "scores of int32": (put("scores", SCORES.astype(np.int32)), "scores"),
    "scores of float64": (put("scores", SCORES.astype(np.float64)), "scores"),
    "scores of strings": (put("scores", ["1"] * len(SCORES)), "scores"),
    "a score that is no number": (put("scores", np.full_like(SCORES, np.nan)), "scores"),
    "types too short": (put("token_type", np.ones(5, np.int32)), "token_type"),
    "byte with a sign": (token(5, "<0x-1>"), "tokens"),
    "byte that is not hexadecimal": (token(5, "<0xZZ>"), "tokens"),
    "the same token twice": (token(300, "<s>"), "tokens"),
    "add_space_prefix a number": (put("add_space_prefix", 0), "add_space_prefix"),
    "unknown beyond the vocabulary": (put("unknown_token_id", len(SCORES)), "unknown_token_id"),
}
CASES = [(byte_pair, name, *case) for name, case in BYTE_PAIR.items()]
CASES += [(sentencepiece, name, *case) for name, case in SENTENCEPIECE.items()]


@pytest.mark.parametrize(
    ("make", "change", "key"),
    [(make, change, key) for make, _, change, key in CASES],
    ids=[f"{make.__name__}: {name}" for make, name, _, _ in CASES],
)
def test_is_rejected(make: Callable[[], Keys], change: Change, key: str) -> None:
    keys = make()
    Tokenizer.from_gguf(keys)
    change(keys)
    start = time.process_time()
    with pytest.raises(InvalidFileError) as caught:
        Tokenizer.from_gguf(keys, name="model.gguf")
    assert time.process_time() - start < 1
    assert caught.value.path == "model.gguf"
    assert caught.value.where == P + key


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_default_id_beyond_the_vocabulary_is_rejected(model: str) -> None:
    tokens = ["a", "b"][: 2 if model == "gpt2" else 1]
    keys = {P + "model": model, P + "tokens": tokens, P + "merges": [], P + "scores": [0.0]}
    with pytest.raises(InvalidFileError, match="its default"):
        Tokenizer.from_gguf(keys)


def test_a_token_that_must_be_added_has_to_exist() -> None:
    keys = byte_pair("glm4")
    del keys[P + "bos_token_id"]
    assert Tokenizer.from_gguf(keys).bos_id is None
    with pytest.raises(InvalidFileError, match="bos_token_id"):
        Tokenizer.from_gguf(keys | {P + "add_bos_token": True})


def test_an_id_of_minus_one_means_there_is_none() -> None:
    """Early converters wrote a -1 of config.json as uint32; llama.cpp's stories260K has two."""
    keys = byte_pair() | {P + "bos_token_id": 2**32 - 1, P + "seperator_token_id": 2**32 - 1}
    assert Tokenizer.from_gguf(keys).bos_id is None


def test_what_published_vocabularies_do_is_accepted() -> None:
    keys = byte_pair()
    keys[P + "tokens"][-1] = ""  # llama.cpp names it [EMPTY_<id>]
    keys[P + "tokens"][-2] = "<0xZZ>"  # a normal token may look like a byte
    keys[P + "merges"].append(keys[P + "merges"][0])  # of equal merges the first counts
    tokenizer = Tokenizer.from_gguf(keys)
    assert tokenizer.token_bytes(COUNT - 1) == b"[EMPTY_%d]" % (COUNT - 1)


def test_hash_flooding_does_not_slow_building_down() -> None:
    tokens = [*byte_pair()[P + "tokens"], *(f"{n:040d}" for n in range(150_000))]
    start = time.process_time()
    Tokenizer.from_gguf(byte_pair() | {P + "tokens": tokens, P + "token_type": None})
    assert time.process_time() - start < 2


# tokenizer.json


def vocabulary(name: str, id: object) -> Change:
    return lambda document: document["model"]["vocab"].update({name: id})


def added(key: str, value: object) -> Change:
    return lambda document: document["added_tokens"][0].update({key: value})


def json_merge(value: object) -> Change:
    return lambda document: document["model"]["merges"].append(value)


def template(**values: object) -> Change:
    return lambda document: document["post_processor"].update(values)


SPARE = 20  # rows of the embedding that no token has
MISSING = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
OUTSIDE = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [10**6], "tokens": ["x"]}}
JSON_CASES: dict[str, Change] = {
    "id negative": vocabulary("zzz", -1),
    "id 2^31": vocabulary("zzz", 2**31),
    "id 2^64": vocabulary("zzz", 2**64),
    "id a float": vocabulary("zzz", 5.5),
    "id a bool": vocabulary("zzz", True),
    "ids with a gap": vocabulary("zzz", COUNT + 7),
    "one id twice": vocabulary("zzz", 5),
    "token of 1 MB": vocabulary("z" * 1_000_000, COUNT),
    "added id negative": added("id", -1),
    "added id 2^31": added("id", 2**31),
    "added id beyond the embedding": added("id", COUNT + SPARE),
    "added id of another token": added("id", 3),
    "added text missing": added("content", None),
    "merge longer than any token": json_merge(["a" * 9000, "b" * 9000]),
    "merge outside the vocabulary": json_merge("a zzz"),
    "merge of three": json_merge(["a", "b", "c"]),
    "merge of numbers": json_merge([1, 2]),
    "merge of one word": json_merge("abc"),
    "template with a missing special": template(single=MISSING),
    "pair with a missing special": template(pair=MISSING),
    "template with an id beyond": template(special_tokens=OUTSIDE),
    "no vocabulary": lambda document: document["model"].pop("vocab"),
    "vocabulary a list": lambda document: document["model"].update(vocab=[]),
    "no tokens": lambda document: (
        document["model"].update(vocab={}, merges=[]),
        document.update(added_tokens=[], post_processor=None),
    ),
}


@pytest.mark.parametrize("change", JSON_CASES.values(), ids=JSON_CASES.keys())
def test_tokenizer_json_is_rejected(change: Change, tmp_path: Path) -> None:
    document = tokenizer_json(byte_pair())
    Tokenizer.from_hf(write_hf_folder(tmp_path, document, COUNT + SPARE))
    change(document)
    write_hf_folder(tmp_path, document, COUNT + SPARE)
    start = time.process_time()
    with pytest.raises(InvalidFileError) as caught:
        Tokenizer.from_hf(tmp_path)
    assert time.process_time() - start < 1
    assert caught.value.path in (str(tmp_path), str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": "1.0"}',
        b'{"model": {"type": "WordPiece", "vocab": {}}}',
    ],
    ids=["empty", "cut", "a list", "not UTF-8", "deep", "no model", "WordPiece"],
)
def test_broken_json_is_rejected(raw: bytes, tmp_path: Path) -> None:
    write_hf_folder(tmp_path, tokenizer_json(byte_pair()))
    (tmp_path / "tokenizer.json").write_bytes(raw)
    with pytest.raises(TritError, match=r"tokenizer\.json"):
        Tokenizer.from_hf(tmp_path)


def test_unknown_pre_tokenizers_of_a_folder_are_not_guessed(tmp_path: Path) -> None:
    document = tokenizer_json(byte_pair()) | {"pre_tokenizer": {"type": "Nonsense"}}
    with pytest.raises(UnsupportedError, match=r"tokenizer\.json.*Nonsense"):
        Tokenizer.from_hf(write_hf_folder(tmp_path, document))


def test_a_folder_without_tokenizer_files_is_an_error(tmp_path: Path) -> None:
    write_hf_folder(tmp_path, tokenizer_json(byte_pair()))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InvalidFileError, match=r"tokenizer\.ggml\.model"):
        Tokenizer.from_hf(tmp_path)
