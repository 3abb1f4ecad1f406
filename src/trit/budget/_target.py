"""What the user asks for: a size of the file, bits per weight, a loss, or memory to run in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trit.errors import UsageError
from trit.sizes import parse_size


@dataclass(frozen=True)
class Target:
    """One of: `fit` bytes of the file, `bpw` bits per weight over all tensors, `max_kld` nats per
    token, `fit_ram` bytes of memory in which the model runs with `ctx` tokens."""

    kind: Literal["fit", "bpw", "max_kld", "fit_ram"]
    value: float
    ctx: int | None = None

    def to_dict(self) -> dict[str, float | int]:
        """As the file's recipe has it."""
        whole = self.kind in ("fit", "fit_ram")
        asked: dict[str, float | int] = {self.kind: int(self.value) if whole else self.value}
        return asked if self.ctx is None else asked | {"ctx": self.ctx}


def target(
    fit: str | int | None = None,
    bpw: float | None = None,
    max_kld: float | None = None,
    fit_ram: str | int | None = None,
    ctx: int | None = None,
) -> Target | None:
    """The one thing that was asked for; None: nothing. UsageError for two, or for nonsense."""
    asked = {"--fit": fit, "--bpw": bpw, "--max-kld": max_kld, "--fit-ram": fit_ram}
    given = [flag for flag, value in asked.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: one budget at a time.")
    if ctx is not None and fit_ram is None:
        raise UsageError("--ctx: the context counts with --fit-ram alone.")
    if ctx is not None and ctx < 1:
        raise UsageError(f"--ctx {ctx}: at least one token is needed.")
    for flag, number in (("--bpw", bpw), ("--max-kld", max_kld)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise UsageError(f"{flag} {number}: expected a number above 0.")
    if fit is not None:
        return Target("fit", parse_size(str(fit), "--fit"))
    if bpw is not None:
        return Target("bpw", bpw)
    if max_kld is not None:
        return Target("max_kld", max_kld)
    if fit_ram is not None:
        return Target("fit_ram", parse_size(str(fit_ram), "--fit-ram"), ctx)
    return None
