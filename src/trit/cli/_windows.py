"""Progress of reading a text in windows."""

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trit.evaluate import Running

LOG_SECONDS = 5.0


class WindowProgress:
    """The cost before the start, then figures so far and time left, on stderr.

    On a terminal one line that is rewritten, in a log a line at times, or JSON lines.
    """

    def __init__(self, *, jsonl: bool = False) -> None:
        self._jsonl = jsonl
        self._live = not jsonl and sys.stderr.isatty()
        self._shown = float("-inf")
        self._drawn = False

    def __call__(self, now: "Running") -> None:
        from trit.cli._terminal import note

        if self._jsonl:
            note(json.dumps(_event(now)))
        elif now.done == 0:
            note(_cost(now))
        elif self._live:
            self._drawn = True
            print(f"\r\x1b[K{_line(now)}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._shown >= LOG_SECONDS or now.done == now.total:
            self._shown = time.monotonic()
            note(_line(now))

    def end(self) -> None:
        """Leave the rewritten line as it is and go on below it."""
        if self._drawn:
            print(file=sys.stderr, flush=True)


def _cost(now: "Running") -> str:
    from trit.cli._terminal import counted, size

    return (
        f"{counted(now.total, 'window')} of {now.ctx} tokens; {size(now.weight_bytes)} of weights "
        "mapped; the time is known after the first window"
    )


def _line(now: "Running") -> str:
    assert now.ppl is not None
    left = now.seconds / now.done * (now.total - now.done)
    kld = "" if now.kld is None else f", KLD {now.kld:.5f}"
    about = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
    return (
        f"[{now.done}/{now.total}] PPL {now.ppl.mean:.4f} ± {now.ppl.stderr:.4f}{kld}, "
        f"{now.seconds / now.done:.2f} s per window, {about} left"
    )


def _event(now: "Running") -> dict[str, object]:
    return {
        "event": "progress",
        "what": "evaluating",
        "done": now.done,
        "total": now.total,
        "unit": "windows",
        "seconds": round(now.seconds, 3),
        "ppl": None if now.ppl is None else now.ppl.mean,
        "kld_mean": now.kld,
    }
