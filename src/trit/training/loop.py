"""The steps of a run: learn, look at what came of it, write it down, save; and go on from a state.

On a CPU a run that is stopped anywhere and taken up again writes the same losses to the last bit:
batches and rates follow from the step alone, and sums are taken by the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from trit.errors import DoesNotFitError, TritError, UsageError
from trit.training import log as logs
from trit.training import state as states
from trit.training.processes import Processes

Progress = Callable[[str, int, int], None]  # what, tokens done, tokens in all
Event = Callable[[dict[str, Any]], None]  # a line of the diary


class Work(Protocol):
    """What the steps of a run are done on.

    step, seconds   so many steps are done, that long they took, over all parts
    steps           there are in all, of `step_tokens` tokens each
    fingerprint     of all that the figures depend on; a state of another is refused
    processes       that take the steps together; the first of them writes
    remedy          what to do when the loss is no longer a number
    """

    folder: Path
    fingerprint: str
    processes: Processes
    step: int
    seconds: float

    @property
    def steps(self) -> int: ...
    @property
    def step_tokens(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def remedy(self) -> str: ...

    def tensors(self) -> dict[str, Tensor]:
        """All that a state holds, float32."""

    def learn(self) -> dict[str, Any]:
        """Move the weights by the next step, whose number `step` still is; what is to be said of
        it, `loss` and the gradient's `norm` among it."""

    def look(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The measurements that are due when `step` steps are done: what they are, and values."""


def load(work: Work) -> None:
    """Take up the state that the folder holds, if there is one."""
    about = states.load(work.folder / states.FILE, work.tensors(), work.fingerprint)
    if about is not None:
        work.step, work.seconds = int(str(about["step"])), float(str(about["seconds"]))


def run(
    work: Work,
    report: Progress | None = None,
    event: Event | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """All steps that are left. KeyboardInterrupt, with the state saved, once `stop` says so.

    TritError when the loss is no longer a number; DoesNotFitError when memory ends.
    """
    _run(work, report or _silent, event or _silent, stop or (lambda: False))


def _silent(*_: object) -> None:
    """For who wants to hear nothing."""


def _run(work: Work, report: Progress, event: Event, stop: Callable[[], bool]) -> None:
    if not work.processes.first:
        return _assist(work, stop)
    with logs.Log(work.folder, work.step) as log:

        def write(kind: str, values: dict[str, Any]) -> None:
            log.write(kind, work.step, values)
            event({"event": kind, "step": work.step} | values)

        def look() -> None:
            for kind, values in work.look():
                numbers = [each for each in values.values() if isinstance(each, float)]
                if not all(map(math.isfinite, numbers)):
                    raise TritError(
                        f"{work.folder}: the measurement after step {work.step} is no longer a "
                        f"number. {work.remedy}"
                    )
                write(kind, values)

        if work.step == 0:
            look()
        report("training", work.step * work.step_tokens, work.steps * work.step_tokens)
        while work.step < work.steps:
            values = _learn(work)
            last = work.step == work.steps
            write("step", values)
            report("training", work.step * work.step_tokens, work.steps * work.step_tokens)
            look()
            stopped = work.processes.any(stop())
            if last or stopped or due(work.step, work.checkpoint_every):
                log.sync()
                about = {
                    "step": work.step,
                    "seconds": work.seconds,
                    "fingerprint": work.fingerprint,
                }
                states.save(work.folder / states.FILE, work.tensors(), about)
            if stopped and not last:
                raise KeyboardInterrupt


def _assist(work: Work, stop: Callable[[], bool]) -> None:
    """The same steps in a process that writes nothing."""
    while work.step < work.steps:
        _learn(work)
        if work.processes.any(stop()) and work.step < work.steps:
            raise KeyboardInterrupt


def _learn(work: Work) -> dict[str, Any]:
    """One step; what the diary says of it."""
    begun = time.perf_counter()
    values = work.learn()
    loss, norm = values["loss"], values["norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TritError(
            f"{work.folder}: step {work.step + 1} has a loss of {loss} and a gradient of {norm}. "
            f"{work.remedy}"
        )
    work.step += 1
    spent = time.perf_counter() - begun
    work.seconds += spent
    return values | {
        "tokens": work.step * work.step_tokens,
        "tokens_per_second": round(work.step_tokens / spent, 1),
        "seconds": round(work.seconds, 3),
    }


def seconds_of(
    steps: int, threads_: int, gradients: Callable[[], object], weights: Iterable[Tensor]
) -> float:
    """How long so many steps take, by the gradients of one, which are thrown away again."""
    if steps == 0:
        return 0.0
    with threads(threads_):
        begun = time.perf_counter()
        gradients()
        seconds = (time.perf_counter() - begun) * steps
    for weight in weights:
        weight.grad = None
    return seconds


def due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps (0: never) is to be done after `step`."""
    return every > 0 and step % every == 0


@contextmanager
def memory(remedy: str) -> Iterator[None]:
    """DoesNotFitError, with what to do about it, where a step's memory ends."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DoesNotFitError(f"a step does not fit into memory: {remedy}") from error


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch on so many threads: the bits of its sums depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(wished: str, setting: str) -> torch.device:
    """The device that `wished` (auto, cpu or cuda) means; UsageError, naming the setting."""
    if wished == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"{setting} is 'cuda', and torch finds no GPU here: take 'cpu'.")
    if wished == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wished)
