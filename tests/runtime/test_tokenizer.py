"""The tokenizer on vocabularies made here: against slow twins, and there and back again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vocabularies import (
    TEXT,
    byte_pair,
    sentencepiece,
    sentencepiece_json,
    slow_byte_pair,
    slow_sentencepiece,
    tokenizer_json,
    write_hf_folder,
)

from trit.errors import UnsupportedError, UsageError
from trit.runtime.tokenizer import Tokenizer

BPE, SPM = byte_pair(), sentencepiece()
BPE_TOKENIZER, SPM_TOKENIZER = Tokenizer.from_gguf(BPE), Tokenizer.from_gguf(SPM)
ANY_TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from(list(TEXT + "▁\n\r\t\x00\x7f\u0301\u200d\ufeff\ufffd\U0001f468 '")),
    ),
    max_size=60,
)


def bpe_id(text: str) -> int:
    return int(BPE["tokenizer.ggml.tokens"].index(text))


def spm_id(text: str) -> int:
    return int(SPM["tokenizer.ggml.tokens"].index(text))


@given(ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_byte_pair_there_and_back(text: str) -> None:
    for parse_special in (False, True):
        ids = BPE_TOKENIZER.encode(text, add_special=False, parse_special=parse_special)
        assert BPE_TOKENIZER.decode(ids) == text


@given(ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_sentencepiece_there_and_back_but_for_its_visible_space(text: str) -> None:
    for parse_special in (False, True):
        ids = SPM_TOKENIZER.encode(text, add_special=False, parse_special=parse_special)
        assert SPM_TOKENIZER.decode(ids) == text.replace("▁", " ")


@given(st.lists(st.sampled_from([*TEXT.split(), " ", "  ", "\n", "'s", "42", "<"]), max_size=12))
@settings(max_examples=200, deadline=None)
def test_byte_pair_equals_its_slow_twin(parts: list[str]) -> None:
    text = "".join(parts)
    words = _gpt2_words(text)
    assert "".join(words) == text
    ids = BPE_TOKENIZER.encode(text, add_special=False, parse_special=False)
    # <tool> and <tool><tool> are user-defined: found even where special tokens are not parsed.
    assert "<tool>" in text or ids == slow_byte_pair(BPE, words)


@given(st.lists(st.sampled_from([*TEXT.split(), " ", "the", "ere", "ü", "世"]), max_size=10))
@settings(max_examples=200, deadline=None)
def test_sentencepiece_equals_its_slow_twin(parts: list[str]) -> None:
    text = "".join(parts)
    if text:
        ids = SPM_TOKENIZER.encode(text, add_special=False, parse_special=False)
        assert ids == slow_sentencepiece(SPM, text)


def _gpt2_words(text: str) -> list[str]:
    """GPT-2's split by the tokenizers library."""
    from tokenizers.pre_tokenizers import ByteLevel

    split = ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in split]


def test_special_tokens_are_found_only_where_asked_for() -> None:
    text = "a<|im_end|>b<tool>c"
    parsed = BPE_TOKENIZER.encode(text, add_special=False)
    assert parsed == [*map(bpe_id, ["a", "<|im_end|>", "b", "<tool>", "c"])]
    plain = BPE_TOKENIZER.encode(text, add_special=False, parse_special=False)
    assert bpe_id("<|im_end|>") not in plain
    assert bpe_id("<tool>") in plain, "user-defined tokens are not special"
    assert BPE_TOKENIZER.decode(plain) == text


def test_the_longest_special_token_wins_wherever_it_stands() -> None:
    ids = BPE_TOKENIZER.encode("<tool><tool><tool>", add_special=False)
    assert ids == [bpe_id("<tool><tool>"), bpe_id("<tool>")]
    keys = byte_pair()
    keys["tokenizer.ggml.tokens"][-2:] = ["ab", "bcd"]
    tokens = keys["tokenizer.ggml.tokens"]
    ids = Tokenizer.from_gguf(keys).encode("abcd", add_special=False)
    assert [tokens[id] for id in ids] == ["a", "bcd"], "not the leftmost: the longest"


def test_many_nested_special_tokens_take_no_time() -> None:
    keys = byte_pair()
    runs = ["\n" * n for n in range(1, 400)]
    count = len(keys["tokenizer.ggml.tokens"])
    keys["tokenizer.ggml.tokens"] += runs
    types = np.full(count + len(runs), 4, np.int32)
    types[:count] = keys["tokenizer.ggml.token_type"]
    keys["tokenizer.ggml.token_type"] = types
    ids = Tokenizer.from_gguf(keys).encode("\n" * 20_000, add_special=False)
    assert ids == [count + 398] * (20_000 // 399) + [count + 20_000 % 399 - 1]


def test_bos_and_eos_are_added_where_the_model_wants_them() -> None:
    bos = bpe_id("<|endoftext|>")
    assert BPE_TOKENIZER.encode("") == []
    keys = byte_pair() | {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    both = Tokenizer.from_gguf(keys)
    assert both.add_bos and both.add_eos
    assert both.encode("") == [bos, bos]
    assert both.encode("a") == [bos, bpe_id("a"), bos]
    assert both.encode("a", add_special=False) == [bpe_id("a")]
    assert SPM_TOKENIZER.encode("") == [1], "SentencePiece begins with <s> unless told otherwise"
    assert Tokenizer.from_gguf(byte_pair("llama-bpe")).add_bos, "Llama 3 too"


def test_sentencepiece_puts_a_space_before_a_text_and_after_special_tokens() -> None:
    ids = SPM_TOKENIZER.encode("the</s>the")
    texts = [SPM_TOKENIZER.token_bytes(id) for id in ids]
    assert texts[0] == b"<s>" and b"".join(texts) == b"<s> the</s> the"
    assert SPM_TOKENIZER.decode(ids) == "<s>the</s>the"
    assert SPM_TOKENIZER.decode(ids, skip_special=True) == "thethe"
    bare = Tokenizer.from_gguf(SPM | {"tokenizer.ggml.add_space_prefix": False})
    assert bare.decode(bare.encode(" the", add_special=False)) == " the"
    assert b"".join(map(bare.token_bytes, bare.encode("the", add_special=False))) == b"the"


def test_what_no_token_covers_falls_back_to_bytes_or_unknown() -> None:
    ids = SPM_TOKENIZER.encode("ß", add_special=False)
    assert ids == [spm_id("▁"), spm_id("<0xC3>"), spm_id("<0x9F>")]
    keep = [i for i, text in enumerate(SPM["tokenizer.ggml.tokens"]) if not text.startswith("<0x")]
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [SPM["tokenizer.ggml.tokens"][i] for i in keep],
        "tokenizer.ggml.token_type": SPM["tokenizer.ggml.token_type"][keep],
        "tokenizer.ggml.scores": SPM["tokenizer.ggml.scores"][keep],
    }
    assert Tokenizer.from_gguf(keys).encode("ß", add_special=False)[1:] == [0, 0]


def test_lone_surrogates_become_the_replacement_character() -> None:
    for tokenizer in (BPE_TOKENIZER, SPM_TOKENIZER):
        for text, sent in (("a\ud800b", "a\ufffdb"), ("\udfff", "\ufffd"), ("\ud83d\ude42", "🙂")):
            assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == sent


def test_phi3_swallows_the_spaces_after_special_tokens() -> None:
    keys = SPM | {"general.name": "Phi-3 Mini"}
    tokenizer = Tokenizer.from_gguf(keys)
    ids = tokenizer.encode("<start> \n the<s> the", add_special=False)
    assert tokenizer.decode(ids) == "<start>the<s> the"


def test_streaming_holds_back_incomplete_characters() -> None:
    text = "é 你好 🙂!"
    for tokenizer in (BPE_TOKENIZER, SPM_TOKENIZER):
        stream = tokenizer.stream()
        pieces = [stream.push(id) for id in tokenizer.encode(text, add_special=False)]
        assert "".join(pieces).removeprefix(" ") == text
        assert stream.finish() == ""
        assert all("\ufffd" not in piece for piece in pieces)
    stream = BPE_TOKENIZER.stream()
    assert stream.push(BPE_TOKENIZER.encode("你", add_special=False)[0]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_streaming_keeps_spaces_and_hides_special_tokens() -> None:
    stream = SPM_TOKENIZER.stream()
    assert stream.push(spm_id("▁")) == " "
    assert stream.push(spm_id("</s>")) == ""
    assert SPM_TOKENIZER.stream(skip_special=False).push(spm_id("</s>")) == "</s>"


def test_ids_beyond_the_vocabulary_are_a_usage_error() -> None:
    for id in (-1, BPE_TOKENIZER.vocab_size, 2**31, 2**70):
        with pytest.raises(UsageError, match="not in the vocabulary"):
            BPE_TOKENIZER.decode([0, id])
        with pytest.raises(UsageError):
            BPE_TOKENIZER.token_bytes(id)


def test_tokens_that_end_an_answer_are_found_by_text_and_by_key() -> None:
    assert BPE_TOKENIZER.eos_ids == {bpe_id("<|endoftext|>"), bpe_id("<|im_end|>")}
    assert SPM_TOKENIZER.eos_ids == {2} and SPM_TOKENIZER.eos_id == 2 and SPM_TOKENIZER.bos_id == 1
    keys = byte_pair()
    keys["tokenizer.ggml.tokens"][-2:] = ["<fim_prefix>", "<fim_pad>"]
    tokenizer = Tokenizer.from_gguf(keys | {"tokenizer.ggml.eot_token_id": 65})
    fim = len(keys["tokenizer.ggml.tokens"]) - 2
    assert {65, fim + 1} < tokenizer.eos_ids and fim not in tokenizer.eos_ids
    plain = tokenizer.encode("<fim_prefix>", add_special=False, parse_special=False)
    assert fim not in plain, "known by its text, it is a control token whatever its type says"


def test_end_of_gpt_oss_turns_is_no_end_of_the_answer() -> None:
    keys = byte_pair()
    keys["tokenizer.ggml.tokens"][-3:] = ["<|end|>", "<|return|>", "<|call|>"]
    tokenizer = Tokenizer.from_gguf(keys)
    end = len(keys["tokenizer.ggml.tokens"]) - 3
    assert {end + 1, end + 2} < tokenizer.eos_ids and end not in tokenizer.eos_ids


def test_unknown_kinds_are_unsupported_not_guessed() -> None:
    with pytest.raises(UnsupportedError, match="bert"):
        Tokenizer.from_gguf(BPE | {"tokenizer.ggml.model": "bert"})
    with pytest.raises(UnsupportedError, match=r"no-such-pre.*smollm"):
        Tokenizer.from_gguf(BPE | {"tokenizer.ggml.pre": "no-such-pre"})


def test_from_a_file(tmp_path: Path) -> None:
    from trit.files import gguf

    path = tmp_path / "small.gguf"
    gguf.write(path, {"general.architecture": "llama"} | BPE, [])
    assert Tokenizer.from_gguf(path).encode(TEXT) == BPE_TOKENIZER.encode(TEXT)


def test_from_tokenizer_json_gives_the_same(tmp_path: Path) -> None:
    found = Tokenizer.from_hf(write_hf_folder(tmp_path, tokenizer_json(BPE)))
    assert found.add_bos and not found.add_eos
    assert found.vocab_size == BPE_TOKENIZER.vocab_size
    assert found.bos_id == bpe_id("<|endoftext|>") and found.eos_id == bpe_id("<|im_end|>")
    assert found.eos_ids == BPE_TOKENIZER.eos_ids
    assert found.encode("a") == [found.bos_id, bpe_id("a")]
    assert found.decode(found.encode("a"), skip_special=True) == "a"
    assert found.token_bytes(bpe_id("Ġ")) == b" "


@pytest.mark.parametrize(
    "document", [tokenizer_json(BPE), sentencepiece_json()], ids=["byte pair", "SentencePiece"]
)
def test_from_tokenizer_json_equals_the_library(document: dict[str, Any], tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps(document))
    found = Tokenizer.from_hf(write_hf_folder(tmp_path, document))
    random = np.random.default_rng(0)
    words = [*TEXT.split(" "), "<|im_end|>", "<tool>", "<tool><tool>", "ab\n\n", "", "日本", "\x00"]
    texts = ["", " ", "  a", TEXT, TEXT + "<tool><|im_end|>x"]
    texts += [" ".join(random.choice(words, 12)) for _ in range(100)]
    for text in texts:
        for add_special in (False, True):
            expected = library.encode(text, add_special_tokens=add_special).ids
            assert found.encode(text, add_special) == expected, text
        library.encode_special_tokens = True
        plain = library.encode(text, add_special_tokens=False).ids
        assert found.encode(text, add_special=False, parse_special=False) == plain, text
        assert found.decode(plain) == text
        library.encode_special_tokens = False
