"""A text to read: given as such, or as a file of UTF-8."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trit.errors import InvalidFileError, UsageError
from trit.evaluate._evaluation import Text

PathLike = str | os.PathLike[str]


def read_text(text: PathLike) -> tuple[str, Text]:
    """The text and what it is called. A str is the text itself; a path object names a file.

    InvalidFileError for a file that is not there or no UTF-8, UsageError for a str that names one.
    """
    if isinstance(text, str):
        name, raw = "(text)", text.encode("utf-8", "replace")
        if _names_a_file(text):
            raise UsageError(
                f"text={text!r} is read as the text itself, and there is a file of this name. "
                f"For the file pass pathlib.Path({text!r})."
            )
    else:
        name = os.fspath(text)
        try:
            raw = Path(text).read_bytes()
        except OSError as error:
            raise InvalidFileError(
                name, "", f"expected a file of UTF-8 text, got: {error.strerror}. Check the path."
            ) from None
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFileError(
            name, f"byte {error.start}", "expected UTF-8 text; convert the file first."
        ) from None
    return content, Text(name, len(raw), hashlib.sha256(raw).hexdigest())


def _names_a_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or of characters that no path has
        return False
