"""sha256 of files and of parts of files, read in pieces."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from trit.errors import InvalidFileError

# Called with bytes done and bytes in all, often enough for a progress bar.
Progress = Callable[[int, int], None]

_PIECE_BYTES = 4 << 20


def sha256(path: str | os.PathLike[str], on_progress: Progress | None = None) -> str:
    """The sha256 of a file, in hexadecimal; InvalidFileError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            return sha256_at(file.fileno(), 0, total, on_progress)
    except OSError as error:
        raise InvalidFileError(Path(path), "", f"cannot be read: {error.strerror}") from error


def sha256_at(fd: int, start: int, count: int, on_progress: Progress | None = None) -> str:
    """The sha256 of `count` bytes from `start`; of fewer if the file ends before."""
    digest = hashlib.sha256()
    done = 0
    while done < count:
        piece = os.pread(fd, min(_PIECE_BYTES, count - done), start + done)
        if not piece:
            break
        digest.update(piece)
        done += len(piece)
        if on_progress is not None:
            on_progress(done, count)
    return digest.hexdigest()
