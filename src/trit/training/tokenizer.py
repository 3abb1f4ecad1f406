"""The tokenizer of a run: a byte-level BPE trained on its texts, or a tokenizer.json that is given.

Training is the `tokenizers` library's (Sennrich et al. 2016, on bytes as in GPT-2). Encoding is
trit's own, so that what a model is trained on is what it will be run on, to the last id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trit.errors import InvalidFileError, UnsupportedError, UsageError
from trit.files._hf_json import read_object
from trit.files._hf_tokenizer import tokenizer_keys
from trit.runtime.tokenizer import Tokenizer

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
END = "<|endoftext|>"  # stands before each document, and ends it


def train(texts: Iterable[str], vocab: int, folder: Path) -> None:
    """Learn `vocab` tokens from texts and write both tokenizer files into a folder.

    Small texts give fewer tokens. UnsupportedError without the `tokenizers` library.
    """
    try:
        from tokenizers import Tokenizer as Learner
        from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    except ImportError:
        raise UnsupportedError(
            "training a tokenizer needs tokenizers: pip install 'trit[train]', or name a "
            "tokenizer.json under tokenizer.file."
        ) from None
    learner = Learner(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learner.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, learner.token_to_id(END))]
    )
    folder.joinpath(FILE).write_text(learner.to_str(pretty=True), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "add_bos_token": True,
    }
    folder.joinpath(SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def adopt(given: Path, folder: Path) -> None:
    """Take over a tokenizer.json, with the tokenizer_config.json beside it if there is one."""
    try:
        text = given.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidFileError(
            given, "", f"expected a tokenizer.json: {error.strerror}. Check tokenizer.file."
        ) from None
    settings = given.with_name(SETTINGS)
    folder.joinpath(FILE).write_text(text, encoding="utf-8")
    if settings.is_file():
        folder.joinpath(SETTINGS).write_bytes(settings.read_bytes())


def load(folder: Path) -> tuple[Tokenizer, Mapping[str, Any]]:
    """The tokenizer of a folder, and the special ids that config.json names.

    UsageError for one that names no token that ends a document.
    """
    found = read_object(folder / FILE)
    rows = 1 + max(_ids(found), default=-1)
    keys = tokenizer_keys(folder, {}, "bitnet-b1.58", rows)
    tokenizer = Tokenizer.from_gguf(keys, name=folder / FILE)
    # Readers assume ids where a file names none; a model must not be trained on such a guess.
    if "tokenizer.ggml.eos_token_id" not in keys:
        raise UsageError(
            f"{folder / FILE}: no token ends a document. Put a tokenizer_config.json "
            "with an eos_token beside the file."
        )
    named = {key: keys.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    return tokenizer, {key: value for key, value in named.items() if value is not None}


def encode(tokenizer: Tokenizer, document: str) -> list[int]:
    """A document's ids between those that keep it apart from its neighbours."""
    ids = tokenizer.encode(document, add_special=False, parse_special=False)
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        ids = [tokenizer.bos_id, *ids]
    begins = tokenizer.add_bos and tokenizer.bos_id == tokenizer.eos_id  # and ends the one before
    return ids if begins or tokenizer.eos_id is None else [*ids, tokenizer.eos_id]


def byte_lengths(tokenizer: Tokenizer) -> list[int]:
    """How many bytes of text each token stands for; special tokens stand for none."""
    special = {*tokenizer.special_ids.values(), *tokenizer.eos_ids}
    return [
        0 if token in special else len(tokenizer.token_bytes(token))
        for token in range(tokenizer.vocab_size)
    ]


def _ids(tokenizer: Mapping[str, Any]) -> list[int]:
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    added = tokenizer.get("added_tokens")
    ids = list(vocab.values()) if isinstance(vocab, Mapping) else []
    ids += [each.get("id") for each in added if isinstance(each, dict)] if added else []
    return [each for each in ids if isinstance(each, int)]
