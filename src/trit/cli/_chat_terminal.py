"""The terminal an answer goes to: colour, and what of a model's text may reach it."""

import os
import sys
from dataclasses import dataclass

from trit.cli._commands import COLOR_WHEN
from trit.errors import UsageError

_GREEN, _DIM, _RESET = "\x1b[32m", "\x1b[2m", "\x1b[0m"
# A model's text could steer a terminal: rewrite lines, set titles, worse. Newline and tab may pass.
_CONTROL = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t\r"
} | {ord("\r"): ""}


@dataclass(frozen=True)
class Screen:
    """Where the answer (stdout) and remarks (stderr) go.

    color   of what is typed and of remarks; the answer itself is plain
    """

    color: bool
    terminal: bool  # stdout is one

    @classmethod
    def of(cls, when: str) -> "Screen":
        """For --color: auto is on for a terminal, unless NO_COLOR says otherwise."""
        if when not in COLOR_WHEN:
            raise UsageError(f"--color {when}: expected auto, on or off.")
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that cannot show a character
        terminal = sys.stdout.isatty()
        wanted = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(wanted if when == "auto" else when == "on", terminal)

    def write(self, text: str) -> None:
        """A piece of the answer, at once."""
        if text:
            sys.stdout.write(text.translate(_CONTROL) if self.terminal else text)
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """A remark on stderr; it may quote the model's file, which is not to be trusted."""
        terminal = sys.stderr.isatty()
        if terminal:
            text = text.translate(_CONTROL)
        colored = self.color and (terminal or not self.terminal)
        print(f"{_DIM}{text}{_RESET}" if colored else text, file=sys.stderr, flush=True)

    def typed(self, prompt: str) -> str:
        """`prompt` of a line to be typed, which itself is then green. For readline, whose count of
        columns leaves out what is between \\001 and \\002."""
        return f"{prompt}\001{_GREEN}\002" if self.color else prompt

    def end_typed(self) -> None:
        """Back to plain after a typed line."""
        if self.color:
            sys.stdout.write(_RESET)
            sys.stdout.flush()
