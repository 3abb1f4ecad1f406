"""Hidden states between two layers, kept beside the file of a job for its resumption.

What a layer is trained on are the states that the layers before gave when they were done. Made
again, by another machine or library, they would be a little different, and so would be all that
follows; so the job goes on from those it had.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit.errors import DoesNotFitError
from trit.files._whole import partial_of, whole

Floats = NDArray[np.float32]

SUFFIX = ".chain"


@dataclass(frozen=True)
class States:
    """What goes into layer `index`, (tokens, width): of the float model, and of the new one."""

    index: int
    plain: Floats
    rounded: Floats


class Chain:
    """The file of States beside a partial file; `job` names all that they depend on."""

    def __init__(self, partial: Path, job: str) -> None:
        self.path = partial.with_name(partial.name + SUFFIX)
        self._job = job

    def load(self) -> States | None:
        """The states kept last; None where there are none of this job, whole."""
        try:
            with np.load(self.path, allow_pickle=False) as kept:  # zip: checksums are compared
                if str(kept["job"]) != self._job:
                    return None
                return States(int(kept["index"]), kept["plain"], kept["rounded"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, states: States) -> None:
        """Keep these in place of those before. DoesNotFitError where there is no room."""
        needed = states.plain.nbytes + states.rounded.nbytes
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise DoesNotFitError(
                f"{self.path}: hidden states need {needed:,} bytes, {free:,} are free. Make room, "
                "then run the same command again."
            )
        with whole(self.path) as file:
            np.savez(
                file,
                job=np.array(self._job),
                index=np.array(states.index),
                plain=states.plain,
                rounded=states.rounded,
            )

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
        partial_of(self.path).unlink(missing_ok=True)
