"""Tokens per second, by the tests of llama-bench, against the limits of the machine.

    pp512          a prompt of 512 tokens, its last logits
    tg128          128 tokens one by one, from an empty context
    tg128 @ d4096  the same with 4096 tokens before

Tokens are random (seeded): speed does not depend on them. One warm-up run comes first. Decoding
cannot go faster than the weights (and the cache) can be read, prefill not faster than int8 products
go; `Limits` are measured, and `share` says how much of the limit was reached.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import _core
from trit.archs import is_router, linears
from trit.engine import BATCH, Rows
from trit.errors import UsageError
from trit.evaluate._machine import Limits, build_commit, cpu_name, limits
from trit.evaluate._opened import Opened
from trit.files._tensor import TensorInfo
from trit.machine.memory import anonymous_memory
from trit.machine.processors import default_threads
from trit.plan import MixtureOfExperts, Plan, Stack
from trit.runtime.needs import CACHE_BITS, needs_now

__all__ = ["Limits", "Speed", "SpeedTest", "bench", "speed_tests"]

DEPTH, RUN = 0, 1  # sequences: what comes before, read once, and a run that shares it


@dataclass(frozen=True)
class SpeedTest:
    """What is timed: `prompt` tokens at once, then `generate` one by one, after `depth` others."""

    prompt: int
    generate: int
    depth: int = 0

    @property
    def label(self) -> str:
        """llama-bench's name: pp512, tg128 @ d4096."""
        parts = [f"{kind}{n}" for kind, n in (("pp", self.prompt), ("tg", self.generate)) if n]
        return "+".join(parts) + (f" @ d{self.depth}" if self.depth else "")

    @property
    def tokens(self) -> int:
        """Tokens the time is divided by."""
        return self.prompt + self.generate


@dataclass(frozen=True)
class Model:
    """What the figures say of the model; `type` is the format most of its bytes are in."""

    path: str
    type: str
    bytes: int
    parameters: int


@dataclass(frozen=True)
class Speed:
    """One test's samples, and all they depend on.

    ternary how ternary weights were multiplied, dot or add; None where there are none
    share   of the limit (read bandwidth for decoding, int8 rate for prefill) that was reached;
            None where limits were not measured, for both at once, or for float weights
    predicted_memory, actual_memory   bytes of the process with its weights, as reckoned and as the
            system tells (None where it does not), with what the engine holds after the test
    """

    model: Model
    test: SpeedTest
    isa: str
    ternary: str | None
    threads: int
    batch: int
    cache_type: str
    samples_ns: tuple[int, ...]
    time: str
    cpu: str
    commit: str
    limits: Limits | None
    share: float | None
    predicted_memory: int
    actual_memory: int | None

    @property
    def samples_ts(self) -> tuple[float, ...]:
        """Tokens per second of each sample."""
        return tuple(1e9 * self.test.tokens / ns for ns in self.samples_ns)

    @property
    def ts(self) -> float:
        """Mean of the tokens per second."""
        return statistics.fmean(self.samples_ts)

    @property
    def ts_spread(self) -> float:
        """Standard deviation of the tokens per second; 0 for one sample."""
        return statistics.stdev(self.samples_ts) if len(self.samples_ns) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """llama-bench's keys, then trit's own. Its builds have no number: `build_number` is 0."""
        spread = statistics.stdev(self.samples_ns) if len(self.samples_ns) > 1 else 0.0
        known = {
            "build_commit": self.commit,
            "build_number": 0,
            "cpu_info": self.cpu,
            "gpu_info": "",
            "backends": "CPU",
            "model_filename": self.model.path,
            "model_type": self.model.type,
            "model_size": self.model.bytes,
            "model_n_params": self.model.parameters,
            "n_batch": self.batch,
            "n_ubatch": self.batch,
            "n_threads": self.threads,
            "type_k": self.cache_type,
            "type_v": self.cache_type,
            "n_gpu_layers": 0,
            "n_prompt": self.test.prompt,
            "n_gen": self.test.generate,
            "n_depth": self.test.depth,
            "test_time": self.time,
            "avg_ns": round(statistics.fmean(self.samples_ns)),
            "stddev_ns": round(spread),
            "avg_ts": self.ts,
            "stddev_ts": self.ts_spread,
            "samples_ns": list(self.samples_ns),
            "samples_ts": list(self.samples_ts),
        }
        measured = self.limits
        return known | {
            "isa": self.isa,
            "ternary": self.ternary,
            "read_bytes_per_second": measured.read_bytes_per_second if measured else None,
            "int8_ops_per_second": measured.int8_ops_per_second if measured else None,
            "share_of_limit": self.share,
            "predicted_memory_bytes": self.predicted_memory,
            "actual_memory_bytes": self.actual_memory,
        }


def speed_tests(
    prompts: Sequence[int], generates: Sequence[int], depths: Sequence[int] = (0,)
) -> list[SpeedTest]:
    """Every prompt length, then every generation length, at every depth; zeros are left out."""
    if min((*prompts, *generates, *depths), default=0) < 0:
        raise UsageError("-p, -n and -d take counts of tokens: 0 or more.")
    made = [
        test
        for depth in depths
        for test in (
            *(SpeedTest(n, 0, depth) for n in prompts if n),
            *(SpeedTest(0, n, depth) for n in generates if n),
        )
    ]
    if not made:
        raise UsageError("nothing to measure: -p and -n are both 0.")
    return made


def bench(
    model: str | os.PathLike[str],
    tests: Sequence[SpeedTest],
    threads: Sequence[int] | None = None,
    repetitions: int = 5,
    with_limits: bool = True,
    on_progress: Callable[[str, int, int], None] | None = None,
    cache_type: str = "f16",
) -> Iterator[Speed]:
    """Time each test with each number of threads, yielding every result as it is there.

    `on_progress(what, done, total)` counts the runs of one test, the warm-up too. Errors:
    UsageError, DoesNotFitError (more tokens than the model was made for), InvalidFileError,
    UnsupportedError.
    """
    if repetitions < 1:
        raise UsageError(f"-r {repetitions}: at least one run is needed.")
    ctx = max(test.depth + test.tokens for test in tests)
    for count in threads or [default_threads()]:
        with Opened(model, ctx, count, cache_type) as opened:
            measured = limits(count, opened.engine.isa) if with_limits else None
            about = _describe(opened)
            for test in tests:
                started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                samples = tuple(_samples(opened, test, repetitions, on_progress))
                speed = test.tokens * len(samples) * 1e9 / sum(samples)
                anonymous, engine = anonymous_memory(), opened.engine
                predicted = needs_now(
                    engine, opened.weight_bytes, opened.file.metadata, vocabulary=False
                )
                yield Speed(
                    model=about,
                    test=test,
                    isa=opened.engine.isa,
                    ternary=opened.engine.ternary,
                    threads=count,
                    batch=BATCH,
                    cache_type=cache_type,
                    samples_ns=samples,
                    time=started,
                    cpu=cpu_name(),
                    commit=build_commit(),
                    limits=measured,
                    share=None if measured is None else _share(opened, test, speed, measured),
                    predicted_memory=predicted.total,
                    actual_memory=None if anonymous is None else anonymous + engine.mapped_bytes(),
                )


def _describe(opened: Opened) -> Model:
    sizes: dict[str, int] = {}
    for tensor in opened.file.tensors.values():
        sizes[tensor.format.name] = sizes.get(tensor.format.name, 0) + tensor.nbytes
    main = max(sizes, key=lambda name: sizes[name])
    count = opened.parameters
    human = f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
    name = f"{opened.plan.arch} {human} {main.upper()}"
    return Model(str(opened.file.path), name, opened.weight_bytes, count)


def _samples(
    opened: Opened,
    test: SpeedTest,
    repetitions: int,
    on_progress: Callable[[str, int, int], None] | None,
) -> Iterator[int]:
    """Nanoseconds of each repetition; the depth is read once and kept."""
    report = on_progress or (lambda what, done, total: None)
    report(test.label, 0, repetitions + 1)
    run = prepared(opened, test)
    for done in range(1, repetitions + 1):
        report(test.label, done, repetitions + 1)
        yield run()
    report(test.label, repetitions + 1, repetitions + 1)


def prepared(opened: Opened, test: SpeedTest) -> Callable[[], int]:
    """What runs a test once and gives its nanoseconds; the depth and a warm-up run come here."""
    random = np.random.default_rng(0)
    vocab = opened.plan.vocab_size
    before, prompt, generate = (
        random.integers(vocab, size=n, dtype=np.int32)
        for n in (test.depth, test.prompt, test.generate)
    )
    engine = opened.engine
    for sequence in (DEPTH, RUN):
        engine.remove(sequence)
    if test.depth:
        engine.forward(Rows.of(before.tolist(), 0, DEPTH))
    engine.fork(DEPTH, RUN, test.depth)
    _run(opened, test.depth, prompt, generate[:1])

    def run() -> int:
        engine.fork(DEPTH, RUN, test.depth)  # going back may be beyond a window
        begun = time.perf_counter_ns()
        _run(opened, test.depth, prompt, generate)
        return time.perf_counter_ns() - begun

    return run


def _run(
    opened: Opened, start: int, prompt: NDArray[np.int32], generate: NDArray[np.int32]
) -> None:
    if len(prompt):
        opened.engine.forward(Rows.of(prompt.tolist(), start, RUN))
    for position, token in enumerate(generate.tolist(), start + len(prompt)):
        opened.engine.forward(Rows.of([token], position, RUN))


def _share(opened: Opened, test: SpeedTest, speed: float, measured: Limits) -> float | None:
    """The part of the limit reached at `speed` tokens per second."""
    if test.prompt and test.generate:
        return None
    if test.generate:
        middle = test.depth + test.generate // 2
        moved = decoded_bytes(opened.plan, opened.file.tensors)
        moved += cached_bytes(opened.plan, opened.engine.cache_type, middle)
        limit = measured.read_bytes_per_second
        return speed * moved / limit if limit else None
    weights = integer_weights(opened)
    limit = measured.int8_ops_per_second
    return speed * 2 * weights / limit if weights and limit else None


def decoded_bytes(plan: Plan, tensors: Mapping[str, TensorInfo]) -> int:
    """Bytes of weights that one token reads: all, but of an untied embedding only a row, and of a
    stack of experts only those it chooses."""
    read = sum(tensor.nbytes for tensor in tensors.values())
    if plan.head.weight != plan.embedding:
        embedding = tensors[plan.embedding]
        read -= embedding.nbytes - embedding.row_bytes
    for stack, top_k in stacks(plan):
        read -= tensors[stack.weight].nbytes // stack.experts * (stack.experts - top_k)
    return read


def stacks(plan: Plan) -> Iterator[tuple[Stack, int]]:
    """The stacks of experts, each with how many of them a token chooses."""
    for layer in plan.layers:
        part = layer.feed_forward
        if isinstance(part, MixtureOfExperts):
            yield from ((stack, part.top_k) for stack in (part.gate, part.up, part.down))


def cached_bytes(plan: Plan, cache_type: str, position: int) -> int:
    """Bytes of keys and values that a token at `position` reads."""
    values = 0
    for layer in plan.layers:
        mixer = layer.mixer
        seen = min(position, mixer.window or position)
        values += 2 * seen * mixer.kv_heads * mixer.head_dim
    return round(CACHE_BITS[cache_type] / 8 * values)


def integer_weights(opened: Opened) -> int:
    """Weights a prompt token is multiplied with in int8; 0 if any layer computes in float.

    The head counts not: it sees the last token alone. Nor do routers, small and always float.
    """
    integer = {row["name"] for row in _core.formats() if row["integer"]}
    parts = [part for layer in opened.plan.layers for part in linears(layer).values()]
    counts = [(part.weight, part.rows * part.cols) for part in parts]
    counts = [(name, count) for name, count in counts if not is_router(name)]
    for stack, top_k in stacks(opened.plan):
        counts.append((stack.weight, top_k * stack.rows * stack.cols))
    if any(opened.file.tensors[name].format.name not in integer for name, _ in counts):
        return 0
    return sum(count for _, count in counts)
