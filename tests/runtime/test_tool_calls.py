"""Tool calls in an answer: found however it is cut, and what is none stays text."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trit.runtime._tool_calls import CLOSE, OPEN, Found, ToolCallParser

ROME = '{"name": "weather", "arguments": {"city": "Röm", "days": [1, null]}}'


def parsed(pieces: list[str]) -> tuple[str, list[Found]]:
    parser, text, calls = ToolCallParser(), "", []
    for piece in pieces:
        more, found = parser.push(piece)
        text += more
        calls += found
    return text + parser.finish(), calls


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    places = st.lists(st.integers(0, len(text)), max_size=30).map(sorted)
    return places.map(
        lambda at: [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    )


WHOLE = f"Let me see.\n{OPEN}\n{ROME}\n{CLOSE}{OPEN}{ROME}{CLOSE} <tool"


@given(cuts(WHOLE))
def test_calls_however_the_text_is_cut(pieces: list[str]) -> None:
    text, calls = parsed(pieces)
    assert text == "Let me see.\n <tool"
    assert [call.name for call in calls] == ["weather"] * 2
    assert json.loads(calls[0].arguments) == {"city": "Röm", "days": [1, None]}


@given(cuts(f"a{OPEN}no JSON{CLOSE}b{OPEN}[1]{CLOSE}c{OPEN}{ROME}"))
def test_what_is_no_call_stays_text(pieces: list[str]) -> None:
    text, calls = parsed(pieces)
    assert text == f"a{OPEN}no JSON{CLOSE}b{OPEN}[1]{CLOSE}c{OPEN}{ROME}" and not calls


def test_arguments_are_never_null() -> None:
    for body, arguments in (
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": null}', "{}"),
        ('{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
    ):
        assert parsed([OPEN + body + CLOSE])[1] == [Found("f", arguments)]
    for body in ('{"name": "f", "arguments": {"a": NaN}}', '{"name": 1}', "{" * 100_000):
        text, calls = parsed([OPEN + body + CLOSE])
        assert not calls and text == OPEN + body + CLOSE
