"""Which tokens are special, and which of them end an answer, as llama.cpp finds them.

GGUF files say too little and sometimes the wrong thing about special tokens, so llama.cpp looks
for well-known texts and believes those (llama-vocab.cpp, "auto-detect special tokens by text").
Token ids equal to its, and answers that stop where its do, need the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # values of tokenizer.ggml.token_type
PARSED_ONLY, STRIP_RIGHT, MARK = 1, 2, 8  # flags of core/tokenizer.h
_SHORTEST_MARK, _LONGEST_MARK = 2, 256  # bytes

# A text here ends an answer, and is a control token whatever its type says.
_END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)


@dataclass(frozen=True)
class _Fim:
    """A role in filling a gap: the keys that name its token, else the texts looked for. Tokens
    found by text become control tokens; padding and file borders also end an answer."""

    keys: tuple[str, ...]
    texts: str  # separated by spaces
    ends: bool = False


_FIM = (
    _Fim(
        ("fim_pre_token_id", "prefix_token_id"),
        "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> "
        "<|prefix|>",
    ),
    _Fim(
        ("fim_suf_token_id", "suffix_token_id"),
        "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> "
        "<|suffix|>",
    ),
    _Fim(
        ("fim_mid_token_id", "middle_token_id"),
        "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> "
        "<|middle|>",
    ),
    _Fim(("fim_pad_token_id",), "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]", ends=True),
    _Fim(
        ("fim_rep_token_id",),
        "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>",
        ends=True,
    ),
    _Fim(("fim_sep_token_id",), "<|file_sep|>", ends=True),
)
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# gpt-oss: always shown, never control.
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
# Phi-3: special tokens swallow the spaces after them, but for these.
_PHI3_KEEP = ("<unk>", "<s>", "<|endoftext|>")


@dataclass
class Specials:
    """`flags` id → flags of core/tokenizer.h; `ends` the ids that end an answer."""

    flags: dict[int, int] = field(default_factory=dict)
    ends: set[int] = field(default_factory=set)

    def control(self, token: int) -> None:
        self.flags[token] = self.flags.get(token, 0) | PARSED_ONLY


def find_specials(
    types: NDArray[np.int32],
    ids: Mapping[str, int],
    find: Callable[[str], int],
    model_name: str,
) -> Specials:
    """types (tokens,) int32; `ids` the special ids by GGUF name ("eos_token_id"); `find` gives the
    id of a text or -1; `model_name` is general.name."""
    out = Specials()
    for token in np.flatnonzero(np.isin(types, (UNKNOWN, CONTROL, USER_DEFINED))).tolist():
        out.flags[token] = 0 if types[token] == USER_DEFINED else PARSED_ONLY
    for role in _FIM:
        token = next((ids[key] for key in reversed(role.keys) if key in ids), -1)
        if token < 0:
            token = next((found for found in map(find, role.texts.split()) if found >= 0), -1)
            if token >= 0:
                out.control(token)
        if role.ends and token >= 0:
            out.ends.add(token)
    by_text = {text: token for text in _END_TEXTS if (token := find(text)) >= 0}
    for token in by_text.values():
        out.control(token)
        out.ends.add(token)
    for text in _SHOWN:
        if (token := find(text)) >= 0:
            out.flags[token] = 0
    out.ends |= {ids[key] for key in _END_KEYS if key in ids}
    _undo_exceptions(out, by_text, find)
    if any(name in model_name.lower() for name in ("phi-3", "phi3")):
        _strip_like_phi3(out, find)
    return out


def flag_marks(specials: Specials, text: Callable[[int], bytes]) -> list[bytes]:
    """Flag what chat templates mark turns with, and return the texts: control tokens, and those of
    the shape <|…|>, which some files have as tokens of the user's (gpt-oss, old ChatML). A text of
    `<think>` or `<tool_call>` is none: models are shown it as such, whoever wrote it."""
    marks = []
    for token, flags in specials.flags.items():
        spelled = text(token)
        shaped = spelled.startswith(b"<|") and spelled.endswith(b"|>")
        whole = spelled[:1] and not 0x80 <= spelled[0] < 0xC0  # begins with a character
        proper = whole and _SHORTEST_MARK <= len(spelled) <= _LONGEST_MARK
        if proper and (shaped or flags & PARSED_ONLY):
            specials.flags[token] = flags | MARK
            marks.append(spelled)
    return marks


def _undo_exceptions(out: Specials, by_text: Mapping[str, int], find: Callable[[str], int]) -> None:
    """Texts that end an answer elsewhere, but not in gpt-oss, Solar, Gemma 4 and PLaMo."""
    ending = {text for text, token in by_text.items() if token in out.ends}
    calls = ending & {"<|call|>", "<|calls|>"}
    if "<|end|>" in ending and calls and ending & {"<|return|>", "<|flush|>"}:
        out.ends.discard(by_text["<|end|>"])
        out.flags[by_text["<|end|>"]] = 0
    plain_eos = "<|tool_response>" in ending or find("<|plamo:eos|>") in out.ends
    if "</s>" in ending and plain_eos:
        out.ends.discard(by_text["</s>"])
        del out.flags[by_text["</s>"]]


def _strip_like_phi3(out: Specials, find: Callable[[str], int]) -> None:
    for token in out.flags:
        out.flags[token] |= STRIP_RIGHT
    for text in _PHI3_KEEP:
        if (token := find(text)) in out.flags:
            out.flags[token] &= ~STRIP_RIGHT
