"""What is kept of a measuring that was broken off, so that the same command goes on there.

The sums of finished layers stand in the unfinished file (files/_writer.py). After a minute's work
what goes into the next layer is kept beside it (files/_chain.py), and the tokens: a text that the
model wrote takes its time, too. What takes less than a minute leaves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from trit.calibrate._data import Data
from trit.calibrate._inputs import Floats
from trit.errors import DoesNotFitError, TritError
from trit.evaluate._evaluation import Text
from trit.files._chain import Chain, States
from trit.files._whole import partial_of
from trit.files.gguf import Writer

KEEP_SECONDS = 60.0  # of work between two times


class Unfinished:
    """What is kept beside `out`; `job` names all that it depends on.

    said     told in words what is kept or not
    resumed  layers that need not be measured, once it is known where to `begin`
    """

    def __init__(self, out: Path, job: str, said: Callable[[str], None] | None) -> None:
        self.resumed = 0
        self._partial = partial_of(out)
        self._chain = Chain(self._partial, job)
        self._states = self._chain.load()
        self._kept = self._states is not None
        self._say = said or (lambda words: None)
        self._since = time.monotonic()
        self._room = True
        self._writers: list[Writer] = []
        self._given: Data | None = None

    def data(self) -> Data | None:
        """The text that was measured on; None if nothing is kept."""
        if self._states is None:
            return None
        about = self._states.about
        texts = tuple(Text(**text) for text in about["texts"])
        return Data(np.array(self._states.arrays["tokens"]), texts, tuple(about["notes"]))

    def begin(self, first: int) -> tuple[int, Floats] | None:
        """The layer to go on with, and what goes into it, as `walk` takes them.

        `first` is the first layer of which something is not written. What is kept and cannot be
        used is removed; by now the unfinished file is ours alone.
        """
        states, self._states = self._states, None
        if states is None and self._chain.path.exists():
            self._say(
                f"{self._partial} is damaged, or of another job (other settings, text, source or "
                "trit): it is begun anew"
            )
        if states is None or states.index > first:
            self.discard()
            self.keep(0, None)
            return None
        self.resumed = states.index
        return (states.index, states.arrays["hidden"]) if states.index else None

    @contextmanager
    def guarding(self, writers: list[Writer], given: Data) -> Iterator[None]:
        """Left by an error, the files stay if it is worth going on with them, and vanish if not.

        `writers` of them, more may be added; `given`, the text.
        """
        self._writers, self._given = writers, given
        try:
            yield
        except BaseException as error:
            hopeless = isinstance(error, TritError) and not isinstance(error, DoesNotFitError)
            measured = not any(writer.remaining for writer in writers)
            if hopeless or not (measured or self._kept):
                for writer in writers:
                    writer.discard()
                self.discard()
            elif isinstance(error, KeyboardInterrupt):
                self._say(
                    f"what is done is kept in {self._partial}; the same command goes on from there"
                )
            raise

    def keep(self, index: int, hidden: Floats | None) -> None:
        """Keep what goes into layer `index`, None for the tokens alone, if it is time to."""
        if not self._room or time.monotonic() - self._since < KEEP_SECONDS:
            return
        given = self._given
        assert given is not None, "nothing is under way"
        arrays = {"tokens": given.tokens} | ({} if hidden is None else {"hidden": hidden})
        about = {"texts": [asdict(text) for text in given.texts], "notes": given.notes}
        for writer in self._writers:
            writer.sync()  # what goes into a layer is of no use without the layers before
        try:
            self._chain.save(States(index, arrays, about))
            self._kept = True
        except (DoesNotFitError, OSError) as error:
            self._room = False
            why = error.strerror if isinstance(error, OSError) else "there is no room"
            self._say(
                f"{self._chain.path} cannot be written ({why}): broken off, the same command does "
                "not go on from here"
            )
        self._since = time.monotonic()

    def discard(self) -> None:
        """Remove what is kept."""
        self._kept = False
        self._chain.discard()
