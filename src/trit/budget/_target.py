"""What the user asks for: a size of the file, bits per weight, a loss, or memory to run in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trit.engine import BATCH, PAGE
from trit.errors import UsageError
from trit.plan import MixtureOfExperts, Plan
from trit.sizes import parse_size

BASE_BYTES = 128 << 20  # the interpreter, the libraries, the vocabulary
CACHE_BLOCK = 32  # to a multiple of which keys and values of a head are padded


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


def cache_bytes(plan: Plan, ctx: int) -> int:
    """What the engine's cache takes for one sequence of `ctx` positions, in f16.

    Layers with a window keep the pages that it and the rows of a pass reach into.
    """
    groups: dict[int, int] = {}
    for layer in plan.layers:
        mixer = layer.mixer
        window = mixer.window if mixer.window and mixer.window < ctx else 0
        padded = -(-mixer.head_dim // CACHE_BLOCK) * CACHE_BLOCK
        page = 2 * 2 * mixer.kv_heads * padded * PAGE
        groups[window] = groups.get(window, 0) + page
    total = 0
    for window, page in groups.items():
        pages = -(-ctx // PAGE)
        if window:  # a pass holds on to those of the pass before it, and begins within a page
            pages = min(pages, -(-(window + 2 * BATCH) // PAGE) + 1)
        total += pages * page
    return total


def scratch_bytes(plan: Plan) -> int:
    """About what a pass of BATCH rows and one row of logits take, and the program itself."""
    widest = 0
    for layer in plan.layers:
        mixer, part = layer.mixer, layer.feed_forward
        attention = 2 * mixer.heads * mixer.head_dim + 2 * mixer.kv_heads * mixer.head_dim
        if isinstance(part, MixtureOfExperts):
            inner = part.top_k * (2 * part.up.rows + part.down.cols)
        else:
            inner = 3 * part.up.rows
        widest = max(widest, attention + inner)
    rows = 4 * BATCH * (4 * plan.width + widest)
    return BASE_BYTES + rows + 2 * 4 * plan.head.rows
