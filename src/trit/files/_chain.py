"""What goes into the next layer, kept beside the file of a job for its resumption.

Hidden states made again, by another machine or library, would be a little different, and so would
be all that follows; and to make them takes as long as it did. So the job goes on from those it had.

    {"job": …, "index": …, "about": …, "arrays": [[name, dtype, shape], …]}, spaces, a line feed
    the arrays' bytes, one after the other
    the sha256 of all this, in hexadecimal
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit.errors import DoesNotFitError
from trit.files._checksum import sha256_at
from trit.files._whole import partial_of, whole

Array = NDArray[Any]

SUFFIX = ".chain"

_ALIGNMENT = 64
_DIGEST_BYTES = 64
_PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class States:
    """What goes into layer `index`, by name, and what else there is to know, as JSON has it."""

    index: int
    arrays: Mapping[str, Array]
    about: Mapping[str, Any] = field(default_factory=dict)


class Chain:
    """The file of States beside a partial file; `job` names all that they depend on."""

    def __init__(self, partial: Path, job: str) -> None:
        self.path = partial.with_name(partial.name + SUFFIX)
        self._job = job

    def load(self) -> States | None:
        """The states kept last, mapped; None where there are none of this job, whole."""
        try:
            with self.path.open("rb") as file:
                end = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
                if end <= 0:
                    return None
                file.seek(end)
                if file.read() != sha256_at(file.fileno(), 0, end).encode():
                    return None
                file.seek(0)
                head = json.loads(file.readline())
                at = file.tell()
                data = np.memmap(file, np.uint8, "r")
        except OSError:
            return None
        if head["job"] != self._job:
            return None
        arrays: dict[str, Array] = {}
        for name, dtype, shape in head["arrays"]:
            count = np.dtype(dtype).itemsize * prod(shape)
            arrays[name] = data[at : at + count].view(dtype).reshape(shape)
            at += count
        return States(head["index"], arrays, head["about"])

    def save(self, states: States) -> None:
        """Keep these in place of those before. DoesNotFitError where there is no room."""
        partial_of(self.path).unlink(missing_ok=True)
        needed = sum(array.nbytes for array in states.arrays.values())
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise DoesNotFitError(
                f"{self.path}: hidden states need {needed:,} bytes, {free:,} are free. Make room, "
                "then run the same command again."
            )
        digest = hashlib.sha256()
        with whole(self.path) as file:
            for piece in self._pieces(states):
                file.write(piece)
                digest.update(piece)
            file.write(digest.hexdigest().encode())

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
        partial_of(self.path).unlink(missing_ok=True)

    def _pieces(self, states: States) -> Iterator[bytes | memoryview]:
        arrays = [[name, array.dtype.str, array.shape] for name, array in states.arrays.items()]
        about = {"job": self._job, "index": states.index, "about": states.about, "arrays": arrays}
        line = json.dumps(about).encode()
        yield line + b" " * (-(len(line) + 1) % _ALIGNMENT) + b"\n"
        for array in states.arrays.values():
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            for start in range(0, len(flat), _PIECE_BYTES):
                yield flat[start : start + _PIECE_BYTES]
