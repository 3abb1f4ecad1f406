"""Ctrl-C as a wish: the first one asks a long job to stop at a good place, the second stops it."""

import signal
from types import FrameType, TracebackType

from trit.cli._terminal import note


class Interrupts:
    """A context manager; `asked` turns true at the first Ctrl-C."""

    def __init__(self) -> None:
        self.asked = False
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> "Interrupts":
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        note("stopping once all is in order; Ctrl-C again stops at once")
