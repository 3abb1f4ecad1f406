"""Cuts an answer at its stop strings while it is written, a piece at a time."""

from __future__ import annotations

from collections.abc import Sequence


class StopCutter:
    """Holds back text that may turn out to be the beginning of a stop string.

    What `push` and `finish` return, joined, is the text before the first stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False
        self.rest = ""  # what came behind the stop string

    def push(self, piece: str) -> str:
        """The text that is certain after `piece`; sets `stopped` when a stop string is complete."""
        if not self._stops or not piece:
            return piece
        text = self._held + piece
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, stop = min(found, key=lambda one: one[0])
            self.stopped = True
            self._held, self.rest = "", text[at + len(stop) :]
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`, shorter than all of it."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
