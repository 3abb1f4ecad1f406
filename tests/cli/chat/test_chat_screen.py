"""The terminal of an answer: control characters, colour, markdown."""

import sys

import pytest

from trit.cli.chat.answer import Shown
from trit.cli.chat.screen import Screen
from trit.runtime.generate import Chunk


def test_the_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(color=False, terminal=True).write("a\x1b]0;title\x07\r\n\tb\x9b")
    assert capsys.readouterr().out == "a\ufffd]0;title\ufffd\n\tb\ufffd"
    Screen(color=False, terminal=False).write("a\x1b")
    assert capsys.readouterr().out == "a\x1b"


def test_colour_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Screen.of("auto").color and not Screen.of("off").color
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen.of("auto").color and Screen.of("on").color


def test_markdown_of_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    for markdown, expected in ((True, "\x1b[3ma\x1b[0m\x1b[0m\n"), (False, "*a*\n")):
        shown = Shown(Screen(color=True, terminal=True), None, markdown=markdown)
        shown.push(Chunk("*a*", ()))
        shown.finish()
        assert capsys.readouterr().out == expected
