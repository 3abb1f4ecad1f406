"""Splits what a model thinks from what it says, while it is written:

    <think>They want three. So:</think>Apples, pears, plums.

Models that were taught to reason do so first, between two tags. Some templates write the first one
themselves, so that the answer begins within; some models leave it out. Tags anywhere else in an
answer are text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trit.runtime._generation_text import StopCutter
from trit.runtime.tokenizer import Tokenizer

# Qwen 3, QwQ, DeepSeek R1, Phi 4, SmolLM 3; Magistral; Seed; and what fine-tunings made of them.
TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
)
_TAIL_TOKENS = 16  # of a prompt, more than any tag has


@dataclass(frozen=True)
class Reasoning:
    """Thoughts stand between `open` and `close`.

    begun   the prompt ends with `open`
    tokens  tags that are tokens; some are control tokens, which are no text otherwise
    """

    open: str
    close: str
    begun: bool = False
    tokens: frozenset[int] = frozenset()


def find(template: str, tokenizer: Tokenizer) -> Reasoning | None:
    """How a model reasons, by the tags that its template or its vocabulary has; None if it has
    none of them."""
    for opening, closing in TAGS:
        ids = [tokenizer.encode(tag, add_special=False) for tag in (opening, closing)]
        tokens = frozenset(one[0] for one in ids if len(one) == 1)
        if closing in template or len(tokens) == 2:
            return Reasoning(opening, closing, tokens=tokens)
    return None


def of_prompt(form: Reasoning, tokenizer: Tokenizer, prompt: Sequence[int]) -> Reasoning:
    """`form` of an answer to `prompt`."""
    tail = tokenizer.decode(prompt[-_TAIL_TOKENS:]).rstrip()
    return replace(form, begun=tail.endswith(form.open))


class Splitter:
    """Takes an answer in pieces; `inside` while it thinks. White space around either part goes."""

    def __init__(self, form: Reasoning) -> None:
        self._form = form
        self.inside = form.begun
        self._undecided = "" if not form.begun else None  # white space and the half of a tag
        self._close = StopCutter((form.close,))
        self._spaces = ""  # behind the thoughts so far
        self._thought = self._said = False  # whether there was any

    def push(self, piece: str) -> tuple[str, str]:
        """What is certainly thought, and what is certainly said."""
        if self._undecided is not None:
            held = self._undecided + piece
            text = held.lstrip()
            if len(text) < len(self._form.open) and self._form.open.startswith(text):
                self._undecided = held
                return "", ""
            self._undecided = None
            if not text.startswith(self._form.open):
                self._said = True
                return "", held
            self.inside = True
            piece = text.removeprefix(self._form.open)
        if not self.inside:
            return "", self._saying(piece)
        thought = self._thinking(self._close.push(piece))
        if not self._close.stopped:
            return thought, ""
        self.inside = False
        return thought, self._saying(self._close.rest)

    def finish(self) -> tuple[str, str]:
        """What was held back, once no more comes."""
        if self._undecided is not None:
            return "", self._undecided
        return (self._thinking(self._close.finish()), "") if self.inside else ("", "")

    def _thinking(self, text: str) -> str:
        text = self._spaces + text
        if not self._thought:
            text = text.lstrip()
        kept = text.rstrip()
        self._spaces = text[len(kept) :]
        self._thought = self._thought or bool(kept)
        return kept

    def _saying(self, text: str) -> str:
        if not self._said:
            text = text.lstrip()
            self._said = bool(text)
        return text
