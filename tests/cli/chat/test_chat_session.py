"""Sessions: what is kept of a chat, where, and for whom."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import talking_model
from running import GREEDY, Terminal, shown
from trit.cli.chat.session import Opened, with_settings
from trit.cli.chat.settings import Asked
from trit.errors import InvalidFileError


def test_sessions(terminal: Callable[..., Terminal], talker: Path, tmp_path: Path) -> None:
    """Saved when leaving, resumed with settings and cache; refused where it is another model's."""
    file = tmp_path / "talk.session"
    chat = terminal(str(talker), "-t", "1", *GREEDY, "--session", str(file))
    chat.until(">>> ")
    first = chat.ask("the cat")
    chat.ask("/set top-k 7")
    chat.send("/bye\n")
    assert "2 messages saved" in chat.until("cache of")
    assert chat.leave() == 0 and file.stat().st_mode & 0o777 == 0o600

    chat = terminal(str(talker), "-t", "1", *GREEDY, "--session", str(file))
    assert re.search(r"2 messages loaded.*; the next one goes on", chat.until(">>> "), re.DOTALL)
    assert "top-k 7" in chat.ask("/show") and "the cat" in chat.ask("/show messages")
    assert "cache" in chat.ask("/save named")
    assert "saved: named" in chat.ask("/load")
    assert "loaded, with the cache of" in chat.ask("/load named")
    chat.ask("more")
    assert re.search(r"\d\d of them still in the cache", chat.ask("/stats"))
    chat.send("\x04")
    assert chat.leave() == 0
    history = tmp_path / "state" / "trit" / "history"
    assert "the cat" in history.read_text() and history.stat().st_mode & 0o777 == 0o600
    key = tmp_path / "state" / "trit" / "session-key"
    assert key.stat().st_mode & 0o777 == 0o600

    other = talking_model.write(tmp_path / "other.gguf", {"general.name": "Other"})
    chat = terminal(str(other), "-t", "1", *GREEDY, "--session", str(file))
    said = chat.until(">>> ")
    assert "without the cache: it is of another model file" in said and "read all" in said
    assert shown(first.split("\n")[1]) in chat.ask("/show messages")
    chat.send("/bye\n")
    chat.leave()


def test_settings_of_a_stranger(tmp_path: Path) -> None:
    for settings in (
        {"temperature": "hot"}, {"temperature": -1}, {"top_k": 1.5}, {"max_tokens": 0},
        {"max_tokens": True}, {"schema": [1]}, {"think": "loud"}, {"stop": [""]}, {"stop": "x"},
    ):  # fmt: skip
        opened = Opened(tmp_path / "s", [], None, settings, "", False)  # type: ignore[arg-type]
        with pytest.raises(InvalidFileError, match="setting"):
            with_settings(Asked(), opened)
    opened = Opened(tmp_path / "s", [], "Be.", {"temperature": 0.5, "stop": ["x"]}, "", False)
    assert with_settings(Asked(), opened) == Asked(temperature=0.5, stop=("x",), system="Be.")
    assert with_settings(Asked(temperature=1), opened).temperature == 1


def test_no_place_for_sessions(
    terminal: Callable[..., Terminal], talker: Path, tmp_path: Path
) -> None:
    """A chat goes on without them."""
    (tmp_path / "state").write_text("a file where a folder should be")
    chat = terminal(str(talker), "-t", "1", *GREEDY)
    assert "lines are not kept" in chat.until(">>> ")
    assert "XDG_STATE_HOME" in chat.ask("/save talk")
    assert "XDG_STATE_HOME" in chat.ask(f"/save {tmp_path / 'talk.session'}")
    assert "messages saved" in chat.ask(f"/save {tmp_path / 'talk.json'}")
    chat.send("/bye\n")
    assert chat.leave() == 0
