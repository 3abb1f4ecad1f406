"""A vocabulary is built once in a process, however often its file is opened; another is another."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_vocabularies import TEXT, byte_pair, sentencepiece, tokenizer_json, write_hf_folder

import talking_model
import trit
from trit import _core
from trit.errors import InvalidFileError
from trit.files import gguf
from trit.runtime import _gguf_tokenizer
from trit.runtime.tokenizer import Tokenizer


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the vocabularies the core has built since the test began."""
    sizes: list[int] = []

    class Counting:
        def __new__(cls, *arguments: Any) -> Any:
            sizes.append(arguments[1])
            return _core.Tokenizer(*arguments)

    _forget()
    monkeypatch.setattr(_gguf_tokenizer, "_core", type("Core", (), {"Tokenizer": Counting}))
    yield sizes
    _forget()


def _forget() -> None:
    _gguf_tokenizer._last.clear()
    gc.collect()
    _gguf_tokenizer._built.clear()


def write(path: Path, keys: dict[str, Any], name: str = "small") -> Path:
    gguf.write(path, {"general.architecture": "llama", "general.name": name} | keys, [])
    return path


def test_a_model_opened_twice_at_once(tmp_path: Path, built: list[int]) -> None:
    path = talking_model.write(tmp_path / "model.gguf")
    with trit.load(path) as one, trit.load(path) as two:
        assert one.tokenize("abc") == two.tokenize("abc")
        assert one.tokenizer._backend._core is two.tokenizer._backend._core
    assert len(built) == 1


def test_a_model_opened_again(tmp_path: Path, built: list[int]) -> None:
    path = talking_model.write(tmp_path / "model.gguf")
    for _ in range(2):
        with trit.load(path) as model:
            model.tokenize("abc")
        del model
        gc.collect()
    assert len(built) == 1


@pytest.mark.parametrize("keys", [byte_pair(), sentencepiece()], ids=["byte pair", "SentencePiece"])
def test_the_same_vocabulary_in_another_file(
    keys: dict[str, Any], tmp_path: Path, built: list[int]
) -> None:
    one, two = (Tokenizer.from_gguf(write(tmp_path / f"{name}.gguf", keys)) for name in "ab")
    assert one.encode(TEXT) == two.encode(TEXT)
    assert built == [one.vocab_size]


def test_a_folder_opened_again(tmp_path: Path, built: list[int]) -> None:
    folder = write_hf_folder(tmp_path, tokenizer_json(byte_pair()))
    assert Tokenizer.from_hf(folder).encode(TEXT) == Tokenizer.from_hf(folder).encode(TEXT)
    assert len(built) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer.ggml.add_bos_token": False},
        {"tokenizer.ggml.eos_token_id": 3},
        {"tokenizer.ggml.pre": "llama-bpe"},
        {"general.name": "another"},  # llama.cpp looks for some models' special tokens by name
    ],
)
def test_any_other_key_is_another_tokenizer(change: dict[str, Any], built: list[int]) -> None:
    keys = byte_pair()
    one = Tokenizer.from_gguf(keys)
    two = Tokenizer.from_gguf(keys | change)
    assert len(built) == 2
    assert one._backend._parts is not two._backend._parts


@pytest.mark.parametrize("key", ["tokens", "merges", "token_type", "scores"])
def test_any_other_entry_is_another_tokenizer(key: str, tmp_path: Path, built: list[int]) -> None:
    """A file rewritten under the same name gives what it says now."""
    keys = sentencepiece() if key == "scores" else byte_pair()
    entries = keys[f"tokenizer.ggml.{key}"]
    changed = np.array(entries) if isinstance(entries, np.ndarray) else list(entries)
    if key == "tokens":
        changed[-1] = "another"
    elif key == "merges":
        changed = changed[:-1]
    else:
        changed[-1] += -1 if key == "scores" or changed[-1] == 4 else 1
    path = tmp_path / "model.gguf"
    Tokenizer.from_gguf(write(path, keys))
    Tokenizer.from_gguf(write(path, keys | {f"tokenizer.ggml.{key}": changed}))
    assert len(built) == 2


def test_what_is_in_use_outlives_others(built: list[int]) -> None:
    keys = byte_pair()
    used = Tokenizer.from_gguf(keys)
    Tokenizer.from_gguf(sentencepiece())
    assert Tokenizer.from_gguf(keys)._backend._core is used._backend._core
    assert len(built) == 2


def test_what_nobody_uses_is_let_go(built: list[int]) -> None:
    """But for the last: memory does not grow with the models that were open once."""
    for pre in ("gpt-2", "llama-bpe", "qwen2"):
        Tokenizer.from_gguf(byte_pair(pre))
    gc.collect()
    assert len(built) == 3
    assert len(_gguf_tokenizer._built) == 1


def test_a_broken_vocabulary_is_an_error_each_time(built: list[int]) -> None:
    keys = byte_pair() | {"tokenizer.ggml.eos_token_id": 10**6}
    for name in ("one.gguf", "two.gguf"):
        with pytest.raises(InvalidFileError, match=name):
            Tokenizer.from_gguf(keys, name=name)


def test_threads_that_open_at_once_build_once(built: list[int]) -> None:
    keys, found = byte_pair(), []
    threads = [
        threading.Thread(target=lambda: found.append(Tokenizer.from_gguf(keys))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(built) == 1
