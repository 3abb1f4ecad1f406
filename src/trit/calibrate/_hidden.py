"""Hidden states of all tokens, before and after a layer: in memory, or in a file without a name."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trit.errors import DoesNotFitError

Floats = NDArray[np.float32]


class Hidden:
    """Two arrays float32 (tokens, width): `before`, what a layer reads, and `after`.

    Beyond `memory` bytes for both they are mapped from a temporary file in `folder` (None: the
    system's), which vanishes with them whatever happens. DoesNotFitError if there is no room.
    """

    def __init__(
        self, tokens: int, width: int, memory: int, folder: str | os.PathLike[str] | None
    ) -> None:
        shape = (2, tokens, width)
        needed = 4 * 2 * tokens * width
        self._file: IO[bytes] | None = None
        if needed <= memory:
            both = np.empty(shape, np.float32)
        else:
            both = self._mapped(shape, needed, Path(folder or tempfile.gettempdir()))
        self.before: Floats = both[0]
        self.after: Floats = both[1]

    def _mapped(self, shape: tuple[int, ...], needed: int, folder: Path) -> Floats:
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise DoesNotFitError(
                f"{folder}: the hidden states of the text need {needed:,} bytes, {free:,} are "
                "free. Take fewer chunks of text, or set TMPDIR to a larger disk."
            )
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (until `close`)
        return np.memmap(self._file, np.float32, "w+", shape=shape)

    @property
    def spilled(self) -> bool:
        """Whether they lie in a file."""
        return self._file is not None

    def swap(self) -> None:
        """What came out of a layer goes into the next."""
        self.before, self.after = self.after, self.before

    def close(self) -> None:
        """Remove the file, if there is one."""
        self.before = self.after = np.empty((0, 0), np.float32)
        if self._file is not None:
            self._file.close()
