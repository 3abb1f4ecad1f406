"""Joules per token: measured where the machine counts them, and modelled everywhere.

Measured: RAPL (`_rapl`) over a test that is repeated for some minutes, less what the machine takes
while idle, prompts and generation apart. Never from the load of a processor. There is nothing to
ask a GPU for: the engine runs on processors.

Modelled: what a token is multiplied with, and the bytes that it reads from memory, by published
figures; no figure of this machine is in it. Arithmetic, pJ at 7 nm: Jouppi et al., "Ten Lessons
From Three Generations Shaped Google's TPUv4i", ISCA 2021, which papers on ternary models quote.
Memory: 1.3 nJ for 64 bits from DDR, the lower figure of Horowitz, "Computing's energy problem",
ISSCC 2014; 4 pJ a bit from HBM2, O'Connor et al., "Fine-Grained DRAM", MICRO 2017, rounded. Left
out: caches, registers, instructions, norms, rope, softmax, scales of blocks, leakage; a processor
spends far more on a product than its multiplier does.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trit import _core
from trit.archs import linears
from trit.engine import BATCH
from trit.errors import UnsupportedError, UsageError
from trit.evaluate._opened import Opened
from trit.evaluate._rapl import POWERCAP, Meter
from trit.evaluate.speed import SpeedTest, cached_bytes, decoded_bytes, prepared, stacks
from trit.machine.processors import default_threads

PICO = 1e-12
INT8 = 0.07 + 0.007  # pJ: a product and a sum
ADD = 0.007  # pJ: a sum alone, all that a weight of -1, 0 or 1 needs of hardware made for it
FP16 = 0.34 + 0.16
DDR = 1300 / 8  # pJ a byte
HBM = 4 * 8
TERNARY = ("tq1_0", "tq2_0")

SECONDS = 120.0  # of idling, and of each test
SLICE = 5.0  # seconds between readings, in which no counter begins again twice

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Modelled:
    """What a token takes, computed; joules.

    int8, ternary, fp16   products with weights of integer formats, of ternary ones, and of floats
                          (attention, too)
    bytes                 read from memory: weights, keys and values
    arithmetic            with ternary products as the engine makes them, in int8
    arithmetic_adding     with a sum in place of each ternary product
    memory_ddr, memory_hbm
    """

    int8: float
    ternary: float
    fp16: float
    bytes: float

    @property
    def arithmetic(self) -> float:
        return PICO * (INT8 * (self.int8 + self.ternary) + FP16 * self.fp16)

    @property
    def arithmetic_adding(self) -> float:
        return PICO * (INT8 * self.int8 + ADD * self.ternary + FP16 * self.fp16)

    @property
    def memory_ddr(self) -> float:
        return PICO * DDR * self.bytes

    @property
    def memory_hbm(self) -> float:
        return PICO * HBM * self.bytes

    def to_dict(self) -> dict[str, float]:
        """As JSON has it, joules per token."""
        return asdict(self) | {
            "arithmetic": self.arithmetic,
            "arithmetic_adding": self.arithmetic_adding,
            "memory_ddr": self.memory_ddr,
            "memory_hbm": self.memory_hbm,
        }


@dataclass(frozen=True)
class Measured:
    """What a token took: joules, idle subtracted; all it was computed from.

    domains   that were counted; without "dram" memory is not in the figures
    """

    joules: float
    watts: float
    idle_watts: float
    seconds: float
    tokens: int
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Energy:
    """A test's joules per token; `unmeasured` says why there is nothing measured."""

    test: SpeedTest
    threads: int
    modelled: Modelled
    measured: Measured | None
    unmeasured: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "modelled": self.modelled.to_dict(),
            "measured": None if self.measured is None else asdict(self.measured),
            "unmeasured": self.unmeasured,
        }


def meter(powercap: Path | None = None) -> tuple[Meter | None, str | None]:
    """The machine's counters (in `powercap`, None: POWERCAP), or why there are none."""
    try:
        return Meter(powercap or POWERCAP), None
    except UnsupportedError as error:
        return None, str(error)


def energies(
    model: str | os.PathLike[str],
    tests: Sequence[SpeedTest],
    threads: Sequence[int] | None = None,
    seconds: float = SECONDS,
    cache_type: str = "f16",
    powercap: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[Energy]:
    """Joules per token of each test with each number of threads, as `speed.bench` takes them.

    seconds       to idle, once, and to repeat each test for, where energy can be measured
    powercap      where the counters are; None: POWERCAP
    on_progress   called with (what, seconds done, of all)
    Errors: as for `bench`; none for a machine without counters.
    """
    check_seconds(seconds)
    counters, why = meter(powercap)
    report = on_progress or (lambda what, done, total: None)
    idle = None if counters is None else _idle(counters, seconds, report)
    ctx = max(test.depth + test.tokens for test in tests)
    for count in threads or [default_threads()]:
        with Opened(model, ctx, count, cache_type) as opened:
            for test in tests:
                measured = None
                if counters is not None and idle is not None:
                    measured = _measured(opened, test, counters, idle, seconds, report)
                yield Energy(test, count, modelled(opened, test), measured, why)


def check_seconds(seconds: float) -> None:
    """UsageError for a time that nothing can be measured in."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"--energy-seconds {seconds:g}: expected a number above 0.")


def modelled(opened: Opened, test: SpeedTest) -> Modelled:
    """Operations and bytes of one token of a test, averaged over its tokens. Nothing is run."""
    integer = {row["name"] for row in _core.formats() if row["integer"]}
    counts = {"int8": 0.0, "ternary": 0.0, "fp16": 0.0}
    for name, products in _products(opened, test):
        format = opened.file.tensors[name].format.name
        kind = "ternary" if format in TERNARY else "int8" if format in integer else "fp16"
        counts[kind] += products
    head = opened.file.tensors[opened.plan.head.weight].nbytes
    body = decoded_bytes(opened.plan, opened.file.tensors) - head
    read = float(_heads(test) * head)
    for tokens, middle, passes in _phases(test):
        counts["fp16"] += tokens * _attention(opened, middle)
        cached = cached_bytes(opened.plan, opened.engine.cache_type, middle)
        rows = min(tokens // passes, BATCH)
        read += passes * (body + _more_experts(opened, rows) + cached)  # rows share the cache
    each = {kind: count / test.tokens for kind, count in counts.items()}
    return Modelled(**each, bytes=read / test.tokens)


def _phases(test: SpeedTest) -> Iterator[tuple[int, int, int]]:
    """Tokens of the prompt and of what is generated, with the position in their middle, and how
    often the layers and the cache are read for them."""
    if test.prompt:
        yield test.prompt, test.depth + test.prompt // 2, -(-test.prompt // BATCH)
    if test.generate:
        start = test.depth + test.prompt
        yield test.generate, start + test.generate // 2, test.generate


def _more_experts(opened: Opened, rows: int) -> float:
    """Bytes of experts that a pass of so many rows reads beyond those of one token, if each row
    chooses evenly and by itself."""
    more = 0.0
    for stack, top_k in stacks(opened.plan):
        one = top_k / stack.experts
        more += opened.file.tensors[stack.weight].nbytes * (1 - (1 - one) ** rows - one)
    return more


def _heads(test: SpeedTest) -> int:
    """How often the output matrix is read and multiplied: of a prompt for the last token alone."""
    return test.generate + (1 if test.prompt else 0)


def _products(opened: Opened, test: SpeedTest) -> Iterator[tuple[str, float]]:
    """Names of matrices and how often their weights are multiplied in the whole test."""
    plan = opened.plan
    for layer in plan.layers:
        for part in linears(layer).values():
            yield part.weight, test.tokens * part.rows * part.cols
    for stack, top_k in stacks(plan):
        yield stack.weight, test.tokens * top_k * stack.rows * stack.cols
    yield plan.head.weight, _heads(test) * plan.head.rows * plan.head.cols


def _attention(opened: Opened, position: int) -> int:
    """Products of a token at `position` with keys and with values."""
    count = 0
    for layer in opened.plan.layers:
        mixer = layer.mixer
        count += 2 * min(position, mixer.window or position) * mixer.heads * mixer.head_dim
    return count


def _idle(counters: Meter, seconds: float, report: OnProgress) -> float:
    """Watts of the machine as it is when nothing is asked of it."""
    counters.advance()
    begun = now = time.perf_counter()
    joules = 0.0
    while (left := seconds - (now - begun)) > 0:
        report("idling", round(now - begun), round(seconds))
        time.sleep(min(left, SLICE))
        joules += counters.advance()
        now = time.perf_counter()
    return joules / (now - begun)


def _measured(
    opened: Opened,
    test: SpeedTest,
    counters: Meter,
    idle: float,
    seconds: float,
    report: OnProgress,
) -> Measured:
    """Repeat a test for some time and count."""
    run = prepared(opened, test)
    counters.advance()
    begun = now = time.perf_counter()
    joules, tokens = 0.0, 0
    while now - begun < seconds:
        report(f"energy of {test.label}", round(now - begun), round(seconds))
        run()
        tokens += test.tokens
        joules += counters.advance()
        now = time.perf_counter()
    took = now - begun
    return Measured(
        (joules - idle * took) / tokens, joules / took, idle, took, tokens, counters.names
    )
