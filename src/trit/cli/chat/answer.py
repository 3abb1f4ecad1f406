"""Shows an answer while it is written: thoughts in their way, markdown on a terminal."""

import time

from trit.cli._terminal import counted
from trit.cli.chat.markdown import Markdown
from trit.cli.chat.screen import Screen
from trit.runtime.generate import Chunk

_TICK = 0.2  # seconds between two looks at the clock while a model thinks


class Shown:
    """Takes the chunks of one answer.

    think   what is done with thoughts: "show" them, "fold" them into a line, "hide" them
    said    whether anything of the answer was shown
    """

    def __init__(self, screen: Screen, think: str | None, *, markdown: bool = True) -> None:
        """`think` None: fold on a terminal, hide in a pipe. `markdown`: as far as the screen has
        colours."""
        self._screen = screen
        self._think = think or ("fold" if screen.terminal else "hide")
        styled = markdown and screen.color and screen.terminal
        self._markdown = Markdown(screen.write_styled) if styled else None
        self._begun = time.monotonic()
        self._tokens = 0
        self._ticked = 0.0
        self._thinks = False
        self._last = ""
        self.said = False

    def push(self, chunk: Chunk) -> None:
        """The next one."""
        if chunk.reasoning:
            self._thought(chunk.reasoning)
        if self._thinks:
            self._tokens += len(chunk.tokens)
        if chunk.text or chunk.finish_reason is not None:
            self._end_thoughts()
        if chunk.text:
            text = self._screen.cleaned(chunk.text)
            self._last = text or self._last  # first: Ctrl-C may come at any moment
            self.said = True
            if self._markdown is None:
                self._screen.write(text)
            else:
                self._markdown.push(text)

    def finish(self) -> None:
        """The answer has ended, or was stopped: the line has, too."""
        self._end_thoughts()
        if self._markdown is not None:
            self._markdown.finish()
        if self._last and not self._last.endswith("\n"):
            self._screen.write("\n")

    def _thought(self, text: str) -> None:
        first, self._thinks = not self._thinks, True
        if first and self._think == "show" and not self._screen.terminal:
            self._screen.write("<think>\n")
        if self._think == "show":
            self._screen.write_dim(text)
        elif self._think == "fold" and time.monotonic() - self._ticked > _TICK:
            self._ticked = time.monotonic()
            self._screen.status(f"thinking, {self._took()}")

    def _end_thoughts(self) -> None:
        if not self._thinks:
            return
        self._thinks = False
        if self._think == "show":
            self._screen.write("\n\n" if self._screen.terminal else "\n</think>\n\n")
        elif self._think == "fold":
            self._screen.status("")
            self._screen.note(f"thought for {self._took()}")

    def _took(self) -> str:
        return f"{time.monotonic() - self._begun:.1f} s, {counted(self._tokens, 'token')}"
