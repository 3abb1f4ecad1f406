"""`trit run` as tests meet it: the flags of a short answer, what it must say, a pseudo-terminal."""

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import talking_model
from trit.cli.chat.screen import _CONTROL
from trit.runtime.model import load

GREEDY = ("--temp", "0", "-n", "8")
NEVER = [f"{token}-inf" for token in (talking_model.EOS, talking_model.END)]
ENDLESS = ("--logit-bias", NEVER[0], "--logit-bias", NEVER[1])


def expected(path: Path, text: str, *, chat: bool = True, system: str | None = None) -> str:
    """What the API answers, greedily, in 8 tokens."""
    with load(path, threads=1) as model:
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": text})
        prompt = model.prompt(messages) if chat else text
        return model.generate(prompt, max_tokens=8, temperature=0).text


def shown(text: str) -> str:
    """A model's text as a terminal gets it."""
    return text.translate(_CONTROL)


class Terminal:
    """`trit run` on a pseudo-terminal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            defaults = {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
            os.environ.update({**defaults, **environment})
            os.execv(sys.executable, [sys.executable, "-m", "trit", "run", *arguments])

    def send(self, text: str) -> None:
        time.sleep(0.1)  # a Ctrl-C between readline's prompt and its waiting is heard a key later
        os.write(self.file, text.encode())

    def until(self, word: str, seconds: float = 30) -> str:
        """What it says up to and with `word`."""
        said = b""
        end = time.monotonic() + seconds
        while word.encode() not in said:
            left = end - time.monotonic()
            assert left > 0, f"waited for {word!r}, got {said!r}"
            if select.select([self.file], [], [], left)[0]:
                try:
                    said += os.read(self.file, 65536)
                except OSError:  # the other side is closed
                    raise AssertionError(f"ended before {word!r}: {said!r}") from None
        # Ctrl-C makes a terminal drop what waits to be shown, in the middle of a character too.
        text = said.decode(errors="replace")
        return re.sub(r"\x1b\[\?2004[hl]\r?", "", text)  # readline's bracketed paste

    def until_it_speaks(self) -> None:
        """Wait for the first of an answer."""
        said = ""
        while not re.sub(r"\x1b\[[?\d;]*[a-zA-Z]|\s", "", said):
            assert select.select([self.file], [], [], 60)[0]
            said += os.read(self.file, 65536).decode(errors="replace")

    def ask(self, text: str) -> str:
        """Type a line; what is said until the next prompt."""
        self.send(text + "\n")
        return self.until(">>> ").replace("\r\n", "\n")

    def leave(self) -> int:
        """The exit code, once everything was said."""
        try:
            while os.read(self.file, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self.file)
