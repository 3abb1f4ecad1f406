"""Keeps the texts of messages apart from what a chat template writes around them.

    said, tools, sign = set_apart(tokenizer, messages, tools, source)   # a sign inside every mark
    ids = encode(tokenizer, template.render(said, tools=tools), sign)   # no mark lies across it

A user who writes `<|im_end|>`, a page that a tool has fetched, a system prompt from a form: text
never becomes a control token, or it could end its own turn and begin another's. Jinja only hands
out one string, so what is to be kept apart carries a sign through the template: a character that
occurs nowhere else, in the middle of the mark. Trimmed, sliced, compared, lowered, written as JSON
or joined with another text, it stays there. Texts without marks are given to the template as they
are, and become the ids they always did.

What this does not see: a template that deletes or replaces characters within a text, and so makes
a mark of what was none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from trit.errors import TemplateError
from trit.runtime.tokenizer import Tokenizer, valid

Messages = Sequence[Mapping[str, Any]]
Apart = tuple[Messages, Any, str]
_SIGNS = range(0xE000, 0xF900)  # for private use: no letter, no space, alike in upper case


def set_apart(tokenizer: Tokenizer, messages: Messages, tools: Any, source: str) -> Apart:
    """Messages and tools, made of JSON's types, with the sign, and the sign; "" if none was needed.

    `source` is the template's. TemplateError for what is nested too deeply.
    """
    try:
        given = [{k: v for k, v in said.items() if not _is_role(k, v)} for said in messages]
        texts = set(_texts([given, tools]))
        places = {text: at for text in texts if (at := _places(tokenizer, text))}
        if not places:
            return messages, tools, ""
        used = set(source).union(*texts)
        sign = next(chr(code) for code in _SIGNS if chr(code) not in used)
        changed = {text: _with_sign(text, at, sign) for text, at in places.items()}
        said = [
            {
                _replaced(k, changed): v if _is_role(k, v) else _replaced(v, changed)
                for k, v in message.items()
            }
            for message in messages
        ]
        return said, _replaced(tools, changed), sign
    except RecursionError:
        raise TemplateError("The messages are nested too deeply.") from None
    except StopIteration:
        raise TemplateError(
            f"The messages use all {len(_SIGNS):,} characters for private use, of which one is "
            "needed to keep them apart from control tokens."
        ) from None


def encode(tokenizer: Tokenizer, text: str, sign: str) -> list[int]:
    """The ids of a rendered text, without BOS: the template's marks, and no others."""
    if not sign:
        return tokenizer.encode(text, add_special=False)
    pieces = [valid(piece) for piece in text.split(sign)]
    breaks, at = [], 0
    for piece in pieces[:-1]:
        at += len(piece.encode())
        breaks.append(at)
    return tokenizer.encode("".join(pieces), add_special=False, breaks=breaks)


def _is_role(key: str, value: object) -> bool:
    """A word that templates compare, and that a vocabulary may happen to have as a mark."""
    return key == "role" and isinstance(value, str) and value.isalnum()


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(values, Sequence):
        for value in values:
            yield from _texts(value)


def _replaced(values: Any, changed: Mapping[str, str]) -> Any:
    if isinstance(values, str):
        return changed.get(values, values)
    if isinstance(values, Mapping):
        return {_replaced(k, changed): _replaced(v, changed) for k, v in values.items()}
    if isinstance(values, Sequence):
        return [_replaced(value, changed) for value in values]
    return values


def _places(tokenizer: Tokenizer, text: str) -> list[int]:
    """Where the sign has to stand, in characters: behind the first one of every mark, in whatever
    case, as a template may change that; and where a mark may have been begun or completed."""
    text = valid(text)
    raw = text.encode()
    starts = set()
    for spelled in (raw, raw.lower(), raw.upper()):  # of ASCII letters; lengths stay
        starts.update(tokenizer.mark_starts(spelled))
    places, characters, last = set(), 0, 0
    for at in sorted(starts):
        characters += len(raw[last:at].decode())
        last = at
        places.add(characters + 1)
    ends = _ends(tokenizer)
    if ends.begins(text):
        places.add(len(text.rstrip()))
    if ends.completes(text):
        places.add(len(text) - len(text.lstrip()))
    return sorted(places)


def _with_sign(text: str, places: Sequence[int], sign: str) -> str:
    text = valid(text)
    bounds = [0, *places, len(text)]
    return sign.join(text[low:high] for low, high in pairwise(bounds))


class _Ends:
    """Whether a text ends as a mark begins, or the reverse: two texts may make one together."""

    def __init__(self, marks: Sequence[bytes]) -> None:
        lowered = [mark.decode("utf-8", "replace").lower() for mark in marks]
        # A word that is one would be begun by every word with its first letter.
        self._forward = sorted(mark for mark in lowered if not mark[0].isalnum())
        self._backward = sorted(mark[::-1] for mark in lowered if not mark[-1].isalnum())
        self._most = max(map(len, lowered), default=1) - 1

    def begins(self, text: str) -> bool:
        """Whether a proper beginning of a mark ends `text`, spaces aside."""
        tail = text.rstrip()[-self._most :].lower() if self._most else ""
        return any(_begins_one(self._forward, tail[at:]) for at in range(len(tail)))

    def completes(self, text: str) -> bool:
        """Whether a proper end of a mark begins `text`, spaces aside."""
        head = text.lstrip()[: self._most].lower()[::-1]
        return any(_begins_one(self._backward, head[at:]) for at in range(len(head)))


def _begins_one(ordered: Sequence[str], part: str) -> bool:
    at = bisect_left(ordered, part)
    return at < len(ordered) and ordered[at].startswith(part)


_known: WeakKeyDictionary[Tokenizer, _Ends] = WeakKeyDictionary()


def _ends(tokenizer: Tokenizer) -> _Ends:
    if tokenizer not in _known:
        _known[tokenizer] = _Ends(tokenizer.marks)
    return _known[tokenizer]
