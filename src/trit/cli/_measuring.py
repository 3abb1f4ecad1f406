"""Progress of measuring statistics, and what it will cost once that can be told."""

import time
from typing import TYPE_CHECKING

from trit.cli._progress import Progress
from trit.cli._terminal import counted, note

if TYPE_CHECKING:
    from trit.calibrate import Importance

JUDGED_SECONDS = 2.0  # after which the rest of a stage is reckoned
WORTH_SAYING = 60.0  # seconds


class Measuring(Progress):
    """Counts tokens; says once for each stage how long it takes, if that is more than a minute."""

    def __init__(self, *, jsonl: bool = False) -> None:
        super().__init__(jsonl=jsonl, unit="token")
        self._stage, self._since, self._at = "", 0.0, 0
        self._judged = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._stage:
            self._stage, self._since, self._at, self._judged = what, now, done, False
        elif not self._judged and now - self._since >= JUDGED_SECONDS and done > self._at:
            self._judged = True
            seconds = (now - self._since) / (done - self._at) * (total - self._at)
            if seconds > WORTH_SAYING and not self.jsonl:
                note(f"{what}: about {counted(round(seconds / 60), 'minute')}")
        super().__call__(what, done, total)


def remarks(result: "Importance") -> list[str]:
    """What the user should know of what was measured."""
    found = list(result.notes)
    for name, experts in result.unseen.items():
        numbers = ", ".join(map(str, experts[:8])) + (" …" if len(experts) > 8 else "")
        found.append(
            f"{name}: no token went to {len(experts)} of its experts ({numbers}): their columns "
            "will count alike. A longer or more varied text reaches more of them"
        )
    if result.silent:
        most = max(result.silent, key=lambda name: result.silent[name])
        found.append(
            f"{counted(sum(result.silent.values()), 'column')} of {len(result.silent)} of the "
            f"tensors never fired, most of them of {most}: their weights count for nothing beside "
            "others of their block"
        )
    return found
