"""A small SentencePiece tokenizer of the BPE kind, trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path

TEXT = """
The quick brown fox jumps over the lazy dog, and the dog sleeps on in the sun.
In the beginning there was a word, and other words came after the first word.
Numbers such as 1, 22, 333 and 2026 are there too; so are symbols: +-*/=<>()[]{}.
Über den Wolken muss die Freiheit wohl grenzenlos sein. Où est la bibliothèque?
"""


def train(folder: Path, rows: int) -> None:
    """Write tokenizer.model and tokenizer_config.json, with added tokens near the end of `rows`."""
    import sentencepiece

    words = TEXT.split()
    lines = [" ".join(words[i : i + 9]) for i in range(len(words))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=rows - 10,
        model_type="bpe",
        byte_fallback=True,
        user_defined_symbols=["<start_of_turn>", "   "],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    added = {
        0: ("<unk>", True),
        1: ("<s>", True),
        2: ("</s>", True),
        rows - 8: ("<|user|>", False),
        rows - 7: ("\u2581\u2581x", False),
        rows - 6: ("<|end|>", True),
    }
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": "{{ messages }}",
        "added_tokens_decoder": {
            str(id): {"content": text, "special": special} for id, (text, special) in added.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
