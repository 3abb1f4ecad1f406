"""Answers of a given form: before a token is drawn, all that would leave the form are forbidden.

    grammar = json_schema(tokenizer, {"type": "object", …})
    Request(prompt, settings, grammar=grammar)

The grammar of a JSON schema and its masks are llguidance's (extra `schema`), over the bytes of the
model's own tokens. JSON is written as Python's json.dumps writes it: a small model that may write
as many spaces as it likes sometimes writes nothing else.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from trit.errors import UnsupportedError, UsageError
from trit.runtime._tool_calls import CLOSE, OPEN
from trit.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Float32 = NDArray[np.float32]
Schema = Mapping[str, Any]
_AS_JSON_DUMPS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_PLACE = re.compile(r"^at \d+\(\d+\): ")
MOST_SCHEMA_CHARS = 100_000
MOST_JOINED = 12


class Grammar:
    """A form; each answer begins a `Guide` of its own."""

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        """`text` is llguidance's; UsageError for a form that cannot be had."""
        from llguidance import LLMatcher

        self._first = LLMatcher(_tokens(tokenizer), text, log_level=0)
        _check(self._first)

    def begin(self) -> Guide:
        """The state of an answer of which nothing is written."""
        return Guide(self._first.deep_copy())


class Guide:
    """Follows one answer."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, logits: Float32) -> Float32:
        """Logits (vocab,) with -inf for every token that cannot come now; one that ends an answer
        can where the form is complete."""
        raw = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        _check(self._matcher)
        bits = np.unpackbits(raw, count=min(len(logits), 8 * len(raw)), bitorder="little")
        masked = np.full_like(logits, -np.inf)
        np.copyto(masked[: len(bits)], logits[: len(bits)], where=bits.astype(bool))
        return masked

    def accept(self, token: int) -> bool:
        """Go on with `token`; True if nothing can come after it."""
        self._matcher.consume_token(token)
        _check(self._matcher)
        return bool(self._matcher.is_stopped())


def json_schema(tokenizer: Tokenizer, schema: Schema) -> Grammar:
    """JSON that matches a schema; UsageError for one that is wrong or not understood,
    UnsupportedError without llguidance."""
    return _grammar(tokenizer, ["start: answer"], {"answer": schema})


def tool_calls(
    tokenizer: Tokenizer,
    functions: Mapping[str, Schema],
    *,
    several: bool,
    answer: Schema | None = None,
) -> Grammar:
    """Calls of functions in the form that _tool_calls.py reads, with arguments of their schemas.

    functions   by name: letters, digits and _.- alone
    several     one or more calls; else one
    answer      a schema: JSON of it in place of calls, too
    Errors as for `json_schema`.
    """
    rules = ["start: calls" if answer is None else "start: calls | answer"]
    rules.append(r'calls: call ("\n" call)*' if several else "calls: call")
    rules.append("call: " + " | ".join(f"call{n}" for n in range(len(functions))))
    schemas: dict[str, Schema] = {} if answer is None else {"answer": answer}
    after = json.dumps("}\n" + CLOSE)
    for n, (name, parameters) in enumerate(functions.items()):
        before = json.dumps(f'{OPEN}\n{{"name": "{name}", "arguments": ')
        rules.append(f"call{n}: {before} arguments{n} {after}")
        schemas[f"arguments{n}"] = {**parameters, "type": "object"}
    return _grammar(tokenizer, rules, schemas)


def _grammar(tokenizer: Tokenizer, rules: list[str], schemas: Mapping[str, Schema]) -> Grammar:
    """Rules in llguidance's dialect of Lark, and one for each schema, by its name."""
    if find_spec("llguidance") is None:
        raise UnsupportedError(
            "answers by a JSON schema need llguidance: pip install 'trit[schema]'."
        )
    try:
        written = [
            f"{name}: %json {json.dumps({**schema, 'x-guidance': _AS_JSON_DUMPS})}"
            for name, schema in schemas.items()
        ]
        length = sum(map(len, written))
        if length > MOST_SCHEMA_CHARS:
            raise UsageError(
                f"the schema has {length} characters; at most {MOST_SCHEMA_CHARS} are allowed."
            )
        joined = sum(map(_joined, schemas.values()))
        if joined > MOST_JOINED:
            raise UsageError(
                f"the schema joins {joined} patterns, formats and references (by allOf, or beside "
                f"each other); at most {MOST_JOINED} are allowed."
            )
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the schema cannot be used: {error}.") from None
    return Grammar(tokenizer, "\n".join(["%llguidance {}", *rules, *written]))


def _joined(schema: Any, inside: bool = False) -> int:
    """How many regular expressions one text may have to match at once, at most.

    Whether any text can match them all is exponential work, which no limit of llguidance ends:
    half a second for 12, twenty for 16.
    """
    if isinstance(schema, list):
        return sum(_joined(one, inside) for one in schema)
    if not isinstance(schema, Mapping):
        return 0
    own = sum(isinstance(schema.get(key), str) for key in ("pattern", "format"))
    beside = own > 0 and any(key in schema for key in ("$ref", "anyOf", "oneOf"))
    here = inside or beside
    count = own + isinstance(schema.get("$ref"), str) if here else 0
    return count + sum(_joined(one, here or key == "allOf") for key, one in schema.items())


_known: WeakKeyDictionary[Tokenizer, LLTokenizer] = WeakKeyDictionary()
_lock = threading.Lock()


def _tokens(tokenizer: Tokenizer) -> LLTokenizer:
    """The vocabulary for llguidance, built once: a second or so for 262,144 tokens."""
    from llguidance import LLTokenizer, TokenizerWrapper

    with _lock:
        if tokenizer not in _known:
            wrapper = TokenizerWrapper(_Vocabulary(tokenizer))
            ends = sorted(tokenizer.eos_ids)
            _known[tokenizer] = LLTokenizer(wrapper, eos_token=ends or None)
        return _known[tokenizer]


class _Vocabulary:
    """What llguidance asks of a tokenizer. Control tokens are no text in any form."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = ref(tokenizer)  # weak: llguidance keeps this object, `_known` that
        ids = range(tokenizer.vocab_size)
        self.tokens = [tokenizer.token_bytes(token) for token in ids]
        self.special_token_ids = [token for token in ids if tokenizer.is_control(token)]
        self.eos_token_id = min(tokenizer.eos_ids, default=0)
        self.bos_token_id = tokenizer.bos_id

    def __call__(self, text: str) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None, "its model is in use"
        return tokenizer.encode(text, add_special=False, parse_special=False)


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():  # its first line; the others point into the grammar, which is ours
        first, *others = matcher.get_error().strip().splitlines()
        problem = _PLACE.sub("", first).rstrip(".")
        if problem.endswith(":"):  # of a regular expression, whose fault stands below it
            causes = [line for line in others if line.startswith("error: ")]
            problem = " ".join([problem, *(line.removeprefix("error: ") for line in causes[-1:])])
        raise UsageError(f"the form of the answer cannot be used: {problem:.300}.")
