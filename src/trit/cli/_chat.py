"""A conversation on a terminal: read a message, stream the answer, again.

Ctrl-C stops the answer, a second one leaves; Ctrl-D leaves. A message in triple quotes may have
several lines. What begins with a slash is a command (_chat_commands.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from trit.cli._chat_commands import COMMANDS, obey
from trit.cli._chat_conversation import Conversation
from trit.cli._chat_settings import Asked
from trit.cli._chat_terminal import Screen
from trit.errors import TritError
from trit.runtime.model import Model

QUOTES = '"""'


def talk(model: Model, asked: Asked, screen: Screen) -> None:
    """Converse until the user leaves; KeyboardInterrupt if they leave by Ctrl-C."""
    conversation = Conversation(model, asked, screen)
    conversation.greet()
    warned = False
    with _line_editing():
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
def _line_editing() -> Iterator[None]:
    """Arrow keys and the history of this session's lines, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_auto_history(True)
    readline.set_completer(_complete)
    readline.set_completer_delims("")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)


def _complete(text: str, state: int) -> str | None:
    matches = [f"/{name}" for name in COMMANDS if text and f"/{name}".startswith(text)]
    return matches[state] if state < len(matches) else None
