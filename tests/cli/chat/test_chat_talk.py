"""A chat on a terminal: its commands, files, thoughts, colours, Ctrl-C."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from running import ENDLESS, GREEDY, Terminal, expected, shown


def test_a_chat(terminal: Callable[..., Terminal], talker: Path, tmp_path: Path) -> None:
    chat = terminal(str(talker), "-t", "1", *GREEDY)
    greeting = chat.until(">>> ")
    assert "Small Model" in greeting and "temp 0" in greeting
    first = chat.ask("the")
    assert shown(expected(talker, "the")) in first
    assert re.search(r"\[8 tokens, [\d.]+ t/s, first after [\d.]+ s, context \d+ of 256\]", first)
    assert "still in the cache" not in chat.ask("/stats")
    chat.ask("again")
    assert re.search(r"\d+ of them still in the cache", chat.ask("/stats"))

    saved = tmp_path / "talk.json"
    assert "4 messages saved" in chat.ask(f"/save {saved}")
    messages = json.loads(saved.read_text())["messages"]
    assert [said["content"] for said in messages[::2]] == ["the", "again"]
    assert messages[1] == {"role": "assistant", "content": expected(talker, "the")}

    chat.ask("/clear")
    assert shown(expected(talker, "one\ntwo")) in chat.ask('"""one\ntwo"""')
    assert shown(expected(talker, "one\ntwo")) in chat.ask("/regen")  # temp 0: the same again
    assert "user: one" in chat.ask("/show messages")
    assert "4 messages loaded" in chat.ask(f"/load {saved}")
    assert "assistant: " + shown(messages[1]["content"]) in chat.ask("/show messages")

    chat.ask("/clear")
    chat.ask("/set system Be brief.")
    assert shown(expected(talker, "the", system="Be brief.")) in chat.ask("the")
    assert "temp 0.5" in chat.ask("/set temp 0.5") + chat.ask("/show")
    assert "such setting" in chat.ask("/set nothing 1")
    assert "temperature is -1" in chat.ask("/set temp -1")
    assert "Did you mean /stats?" in chat.ask("/stat")
    assert "/regen" in chat.ask("/help")
    assert "the prompt has" in chat.ask("long " * 80)  # does not fit; the chat goes on
    chat.ask("/set temp 0")  # above it, the answer may end at once
    chat.ask("/set n 2")
    assert "[2 tokens" in chat.ask("the")
    chat.send("/bye\n")
    assert chat.leave() == 0


def test_refused_files_of_a_chat(
    terminal: Callable[..., Terminal], talker: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"mine": 1}')
    half = tmp_path / "half.json"
    half.write_text('{"trit_chat": 1, "messages": [{"role": "user", "content": "x"}]}')
    chat = terminal(str(talker), "-t", "1", *GREEDY)
    chat.until(">>> ")
    assert "/save wrote" in chat.ask(f"/save {other}")
    assert other.read_text() == '{"mine": 1}'
    assert "/save wrote" in chat.ask(f"/load {other}")
    assert "in turn" in chat.ask(f"/load {half}")
    assert "No such file" in chat.ask(f"/load {tmp_path / 'absent'}")
    assert "saved: none" in chat.ask("/load")
    assert "no name" in chat.ask("/save")
    assert "no file" in chat.ask("/file")
    other.rename(tmp_path / "other")
    assert "session" in chat.ask(f"/load {tmp_path / 'other'}")
    assert "session" in chat.ask(f"/save {tmp_path / 'other'}")
    unknown = chat.ask("/set mood good")
    assert "no such setting" in unknown and "markdown" in unknown
    for number in ("0", "-5"):
        assert f"are {number}; expected 1 or more, or -1" in chat.ask(f"/set n {number}")
    assert re.search(r"most tokens +8\n", chat.ask("/show"))
    chat.ask("/set n -1")
    assert re.search(r"most tokens +until it ends\n", chat.ask("/show"))
    assert "on or off" in chat.ask("/set markdown maybe")
    assert "--format xml" in chat.ask("/set format xml")
    assert "no answer" in chat.ask("/regen")
    chat.send("\x04")
    assert chat.leave() == 0


def test_ctrl_c_stops_the_answer_then_leaves(
    terminal: Callable[..., Terminal], endless: Path
) -> None:
    chat = terminal(str(endless), "-t", "1", "-c", "0", "--temp", "0", *ENDLESS)
    chat.until(">>> ")
    chat.send("the\n")
    chat.until("\n")
    chat.until_it_speaks()
    chat.send("\x03")
    assert "Ctrl-C again leaves" in chat.until(">>> ")
    assert "assistant: " in chat.ask("/show messages")  # the stopped answer was said
    chat.send("\x03")
    assert "Ctrl-C again leaves" in chat.until(">>> ")
    chat.send("\x03")
    assert "trit: interrupted" in chat.until("interrupted")
    assert chat.leave() == 130


def test_files_go_with_the_next_message(
    terminal: Callable[..., Terminal], talker: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("a cat\n")
    chat = terminal(str(talker), "-t", "1", *GREEDY)
    chat.until(">>> ")
    assert "notes.txt: " in chat.ask(f"/file {tmp_path / 'notes.txt'}")
    assert shown(expected(talker, "the\n\nnotes.txt:\n\na cat")) in chat.ask("the")
    assert "expected a file with text" in chat.ask("/file /nonexistent")
    chat.send("/bye\n")
    chat.leave()


def test_thoughts_on_a_terminal(terminal: Callable[..., Terminal], thinker: Path) -> None:
    chat = terminal(str(thinker), "-t", "1", *GREEDY)
    chat.until(">>> ")
    assert re.search(r"thought for [\d.]+ s, 8 tokens", chat.ask("the"))
    chat.ask("/set think hide")
    assert "thought for" not in chat.ask("the")
    chat.send("/bye\n")
    chat.leave()


def test_in_colour(terminal: Callable[..., Terminal], talker: Path) -> None:
    """A gauge, and marks of markdown as styles, but not in JSON, whose text they are."""
    pytest.importorskip("llguidance")
    chat = terminal(str(talker), "-t", "1", *GREEDY, NO_COLOR="")
    chat.until(">>> ")
    assert re.search(r"context [▰▱]{10} \d+ of 256", chat.ask("the"))
    chat.ask('/set schema {"const": "*a*"}')
    assert '"*a*"' in chat.ask("the")
    chat.ask("/set format text")
    chat.send("/bye\n")
    assert chat.leave() == 0
