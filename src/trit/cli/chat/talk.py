"""A conversation on a terminal: read a message, stream the answer, again.

Ctrl-C stops the answer and keeps what was said, a second one leaves; Ctrl-D leaves. A message in
triple quotes may have several lines. What begins with a slash is a command (commands.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trit.cli.chat.commands import COMMANDS, obey
from trit.cli.chat.conversation import Conversation
from trit.cli.chat.screen import Screen
from trit.cli.chat.session import located, open_session, state_folder
from trit.cli.chat.settings import Asked
from trit.errors import TritError, UsageError
from trit.runtime.model import Model

QUOTES = '"""'
_HISTORY_LINES = 1000


def talk(model: Model, asked: Asked, screen: Screen, session: str | None = None) -> None:
    """Converse until the user leaves; KeyboardInterrupt if they leave by Ctrl-C.

    `session`: the name or file of a conversation to go on with, and to save in the end.
    """
    conversation = Conversation(model, asked, screen)
    path = None if session is None else located(session)
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"--session {session}: there is no folder {path.parent}.")
    conversation.greet()
    conversation.session = path
    if path is not None and path.exists():
        conversation.load(open_session(path), keep_system=True)
    try:
        _converse(conversation, screen)
    finally:
        if conversation.session is not None and conversation.messages:
            conversation.save(conversation.session)


def _converse(conversation: Conversation, screen: Screen) -> None:
    warned = False
    with _line_editing(screen):
        while True:
            try:
                text = _read(screen)
                if text.startswith("/"):
                    if not obey(text, conversation):
                        return
                elif text.strip():
                    conversation.answer(text)
                warned = False
            except EOFError:
                screen.note("")
                return
            except KeyboardInterrupt:
                if warned:
                    raise
                warned = True
                screen.note("\nCtrl-C again leaves, and so does Ctrl-D")
            except TritError as error:
                screen.note(f"trit: error: {error}")


def _read(screen: Screen) -> str:
    """A message: a line, or the lines from one triple quote to the next. EOFError at the end."""
    text = _line(">>> ", screen)
    if not text.startswith(QUOTES):
        return text
    text = text.removeprefix(QUOTES)
    while not text.rstrip().endswith(QUOTES):
        text += "\n" + _line("... ", screen)
    return text.rstrip().removesuffix(QUOTES)


def _line(prompt: str, screen: Screen) -> str:
    try:
        return input(screen.typed(prompt))
    finally:
        screen.end_typed()


@contextmanager
def _line_editing(screen: Screen) -> Iterator[None]:
    """Arrow keys and the history of lines, kept for the next chat, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = _history(screen)
    readline.set_auto_history(True)
    readline.set_history_length(_HISTORY_LINES)
    readline.set_completer(_complete)
    readline.set_completer_delims("")
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        if path is not None:
            readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_completer(None)
        with suppress(OSError):  # what was typed is no reason to fail
            if path is not None:
                readline.write_history_file(path)


def _history(screen: Screen) -> Path | None:
    """The file of lines typed before, for its owner's eyes; None where it cannot be."""
    try:
        path = state_folder() / "history"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        return path
    except (OSError, TritError) as error:
        screen.note(f"lines are not kept for the next chat: {error}")
        return None


def _complete(text: str, state: int) -> str | None:
    matches = [f"/{name}" for name in COMMANDS if text and f"/{name}".startswith(text)]
    return matches[state] if state < len(matches) else None
