"""A file mapped into memory, read-only, and the list of files this process has mapped.

The list is what keeps a writer from replacing the file it is reading from: it is asked by inode, so
links and other spellings of a path do not deceive it.
"""

import contextlib
import mmap
import os
import stat
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError

_live: "weakref.WeakSet[Mapping]" = weakref.WeakSet()


class Mapping:
    """The bytes of a regular file. Arrays that view them stay good after `close`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map `path`; InvalidFileError if it is missing, unreadable, no regular file, or empty."""
        self.path = Path(path)
        try:
            # A pipe or a device would block or never end: ask before opening.
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise InvalidFileError(self.path, "", "expected a regular file")
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size == 0:
                    raise InvalidFileError(self.path, "", "expected a model, got an empty file")
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidFileError(self.path, "", f"cannot be read: {reason}") from error
        self.size = len(self.buffer)
        self.identity = (status.st_dev, status.st_ino)
        _live.add(self)

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The whole file, uint8 (size,), a read-only view."""
        return np.frombuffer(self.buffer, dtype=np.uint8)

    def close(self) -> None:
        """Unmap now, or when the last array that views the file is gone."""
        _live.discard(self)
        # While some array still views it, the mapping goes with the last of them.
        with contextlib.suppress(BufferError):
            self.buffer.close()


def is_mapped(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a file that this process has open for reading as a model."""
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return any(each.identity == (status.st_dev, status.st_ino) for each in _live)


def forget() -> None:
    """Give the pages of all mapped files back to the system; what is asked for again is read again.

    For whoever has walked over much of a file once. Where the system cannot do it nothing happens.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        for each in list(_live):
            each.buffer.madvise(mmap.MADV_DONTNEED)
