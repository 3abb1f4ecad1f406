"""What a prompt is made of: -p, files, stdin."""

import sys
from collections.abc import Sequence
from pathlib import Path

from trit.cli._terminal import note
from trit.errors import InvalidFileError

_PATIENCE = 1.0  # seconds until it is said what is waited for


def read_prompt(prompt: str | None, files: Sequence[Path]) -> str | None:
    """The text of -p, of the files and of stdin, in that order; None if there is none of them."""
    piped = _read_stdin(waiting=prompt is not None or bool(files))
    texts = [read_file(path) for path in files]
    if len(files) > 1:
        texts = [titled(path, text) for path, text in zip(files, texts, strict=True)]
    given = [*([] if prompt is None else [prompt]), *texts, *([piped] if piped else [])]
    if not given:
        return None
    return "\n\n".join(part for part in given if part)


def read_file(path: Path) -> str:
    """The text of a file without one newline at its end, which is not part of a prompt, as for
    llama.cpp. InvalidFileError if there is none."""
    try:
        return _text(str(path), path.read_bytes())
    except OSError as error:
        problem = f"expected a file with text, got: {error.strerror}. Check its name."
        raise InvalidFileError(path, "", problem) from None


def titled(path: Path, text: str) -> str:
    """A file's text under its name, for a prompt with several things in it."""
    return f"{path.name}:\n\n{text}"


def _read_stdin(*, waiting: bool) -> str | None:
    """All of stdin, None if it is a terminal. `waiting`: there is a prompt already."""
    if sys.stdin.isatty():
        return None
    if waiting:
        _say_if_silent()
    return _text("stdin", sys.stdin.buffer.read())


def _say_if_silent() -> None:
    """A pipe that somebody else holds open would make the command wait without a word."""
    import select

    try:
        ready, _, _ = select.select([sys.stdin], [], [], _PATIENCE)
    except (OSError, ValueError):  # nothing that can be waited for
        return
    if not ready:
        note("waiting for the rest of the prompt on stdin (</dev/null: there is none)")


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InvalidFileError(
            name, f"byte {error.start}", "expected UTF-8 text; convert it first."
        ) from None
