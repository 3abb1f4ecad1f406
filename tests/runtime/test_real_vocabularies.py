"""Ids on published vocabularies: llama.cpp's vectors, and the zoo's models on real text."""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from trit.runtime.tokenizer import Tokenizer

VECTORS = ("deepseek-coder", "falcon", "gpt-2", "llama-spm", "mpt", "phi-3")
MODELS = ("smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct")
TEXTS = (
    "text/wikitext-2-valid.txt",
    "calibration/code.utf8",
    "calibration/multilingual.utf8",
    "calibration/technical.utf8",
)
CHUNK, STRIDE = 3000, 30_000  # characters: a tenth of each text
Find = Callable[[str], Path]


@pytest.mark.parametrize("name", VECTORS)
def test_ids_equal_the_vectors(name: str, shared_data: Find) -> None:
    path = shared_data(f"tokenizers/ggml-vocab-{name}.gguf")
    texts = shared_data(f"tokenizers/{path.name}.inp").read_text("utf-8")
    lines = shared_data(f"tokenizers/{path.name}.out").read_text().split("\n")
    tokenizer = Tokenizer.from_gguf(path)
    cases = list(zip(texts.split("\n__ggml_vocab_test__\n"), lines, strict=False))
    assert len(cases) > 40
    for text, ids in cases:
        got = tokenizer.encode(text, add_special=False, parse_special=False)
        assert got == [int(id) for id in ids.split()], text
        assert tokenizer.decode(got) == text


@pytest.mark.parametrize("name", MODELS)
def test_ids_equal_llama_cpp_on_real_text(name: str, zoo_model: Find, shared_data: Find) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    path = zoo_model(name)
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    tokenizer = Tokenizer.from_gguf(path)
    assert tokenizer.add_bos == llama_cpp.llama_vocab_get_add_bos(vocabulary)
    assert tokenizer.add_eos == llama_cpp.llama_vocab_get_add_eos(vocabulary)
    ends = filter(
        lambda id: llama_cpp.llama_vocab_is_eog(vocabulary, id), range(tokenizer.vocab_size)
    )
    assert tokenizer.eos_ids == set(ends)
    ids = (ctypes.c_int32 * (4 * CHUNK))()
    for source in TEXTS:
        text = shared_data(source).read_text("utf-8")
        for start in range(0, len(text), STRIDE):
            part = text[start : start + CHUNK]
            raw, flags = part.encode(), (start % (2 * STRIDE) == 0, start % (4 * STRIDE) == 0)
            count = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), ids, len(ids), *flags)
            assert tokenizer.encode(part, *flags) == list(ids[:count])
    llama_cpp.llama_model_free(model)


@pytest.mark.parametrize("name", MODELS)
def test_real_text_there_and_back(name: str, zoo_model: Find, shared_data: Find) -> None:
    tokenizer = Tokenizer.from_gguf(zoo_model(name))
    for source in TEXTS:
        text = shared_data(source).read_text("utf-8")[:200_000].replace("▁", "_")
        ids = tokenizer.encode(text, add_special=False)
        assert tokenizer.decode(ids) == text
