"""The terminal an answer goes to: colour, and what of a model's text may reach it."""

import os
import sys
from dataclasses import dataclass

from trit.cli._commands import COLOR_WHEN
from trit.errors import UsageError

_GREEN, _DIM, _RESET, _ERASE = "\x1b[32m", "\x1b[2m", "\x1b[0m", "\r\x1b[K"
_GAUGE = 10  # columns
# A model's text could steer a terminal: rewrite lines, set titles, worse. Newline and tab may pass.
_CONTROL = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t\r"
} | {ord("\r"): ""}


@dataclass(frozen=True)
class Screen:
    """Where the answer (stdout) and remarks (stderr) go.

    color   of what is typed, of remarks, and of the answer on a terminal
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

    def cleaned(self, text: str) -> str:
        """A model's text without what would steer a terminal, where stdout is one."""
        return text.translate(_CONTROL) if self.terminal else text

    def write(self, text: str) -> None:
        """A piece of the answer, at once."""
        self.write_styled(self.cleaned(text))

    def write_styled(self, text: str) -> None:
        """The same of a text that is clean and may have colours of ours."""
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

    def write_dim(self, text: str) -> None:
        """A piece of a model's thoughts, at once."""
        text = self.cleaned(text)
        self.write_styled(f"{_DIM}{text}{_RESET}" if self.color and self.terminal else text)

    def status(self, text: str) -> None:
        """A line on stderr that the next one replaces, "" by nothing; where that can be done."""
        if self.color and self.terminal and sys.stderr.isatty():
            print(f"{_ERASE}{_DIM}{text}{_RESET}", end="", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A remark on stderr; it may quote the model's file, which is not to be trusted."""
        terminal = sys.stderr.isatty()
        if terminal:
            text = text.translate(_CONTROL)
        colored = self.color and (terminal or not self.terminal)
        print(f"{_DIM}{text}{_RESET}" if colored else text, file=sys.stderr, flush=True)

    def gauge(self, share: float) -> str:
        """A bar for how much of something is used, and a space; "" on a plain screen."""
        if not self.color:
            return ""
        full = min(_GAUGE, max(0, round(share * _GAUGE)))
        return "▰" * full + "▱" * (_GAUGE - full) + " "

    def typed(self, prompt: str) -> str:
        """`prompt` of a line to be typed, which itself is then green. For readline, whose count of
        columns leaves out what is between \\001 and \\002."""
        return f"{prompt}\001{_GREEN}\002" if self.color else prompt

    def end_typed(self) -> None:
        """Back to plain after a typed line."""
        if self.color:
            sys.stdout.write(_RESET)
            sys.stdout.flush()
