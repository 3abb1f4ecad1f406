"""The steps of a run: learn, measure, write down, save; and go on where a state was left.

On a CPU a run that is stopped anywhere and taken up again writes the same losses to the last bit:
batches and rates follow from the step alone, and sums are taken by the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trit.errors import DoesNotFitError, TritError, UsageError
from trit.plan import Plan
from trit.runtime.tokenizer import Tokenizer
from trit.training import log as logs
from trit.training import network as networks
from trit.training import optimizer as optimizers
from trit.training import state as states
from trit.training.config import Config, Training
from trit.training.data import Packed
from trit.training.processes import Processes

Progress = Callable[[str, int, int], None]  # what, tokens done, tokens in all
Event = Callable[[dict[str, Any]], None]  # a line of the diary

SAMPLE_TEMPERATURE = 0.8


@dataclass
class Session:
    """A run in memory. `step` steps are done; `seconds` were spent on them, over all parts."""

    config: Config
    folder: Path
    twin: bool
    packed: Packed
    tokenizer: Tokenizer
    network: networks.Network
    optimizer: optimizers.Optimizer
    device: torch.device
    fingerprint: str  # of all that the figures depend on; a state of another is refused
    processes: Processes
    step: int = 0
    seconds: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """All that a state holds."""
        weights = {f"weight.{name}": each for name, each in self.network.weights.items()}
        return weights | self.optimizer.state

    def ternary(self, step: int) -> bool:
        """Whether weights are ternary in a step."""
        return not self.twin and optimizers.is_ternary(step, self.config.training)

    def rows(self, tokens: np.ndarray[Any, Any]) -> Tensor:
        """Tokens on the device."""
        return torch.from_numpy(tokens).to(self.device)


def begin(
    config: Config,
    folder: Path,
    twin: bool,
    packed: Packed,
    tokenizer: Tokenizer,
    plan: Plan,
    shapes: Mapping[str, tuple[int, ...]],
    fingerprint: str,
    processes: Processes,
) -> Session:
    """A session with the weights of the first step, or of the state that the folder holds."""
    training = config.training
    device = processes.device(device_of(training))
    weights = {
        name: weight.to(device).requires_grad_()
        for name, weight in networks.initial(plan, shapes, config.seed).items()
    }
    network = networks.Network(
        plan,
        weights,
        compute=torch.bfloat16 if training.bf16 else torch.float32,
        checkpointing=training.gradient_checkpointing,
    )
    scale = training.twin_rate if twin else 1.0
    optimizer = optimizers.Optimizer(weights, networks.matrices(plan), training, scale)
    session = Session(
        config, folder, twin, packed, tokenizer, network, optimizer, device, fingerprint, processes
    )
    about = states.load(folder, session.tensors(), fingerprint)
    if about is not None:
        session.step, session.seconds = int(str(about["step"])), float(str(about["seconds"]))
    return session


def run(session: Session, report: Progress, event: Event, stop: Callable[[], bool]) -> None:
    """All steps that are left. KeyboardInterrupt, with the state saved, once `stop` says so.

    TritError when the loss is no longer a number; DoesNotFitError when memory ends.
    """
    if not session.processes.first:
        return _assist(session, stop)
    config, training, run = session.config, session.config.training, session.config.run
    batch_tokens = training.batch * config.model.context
    with logs.Log(session.folder, session.step) as log:

        def write(kind: str, values: dict[str, Any]) -> None:
            log.write(kind, session.step, values)
            event({"event": kind, "step": session.step} | values)

        report("training", session.step * batch_tokens, training.steps * batch_tokens)
        while session.step < training.steps:
            values = _learn(session)
            last = session.step == training.steps
            write("step", values)
            report("training", session.step * batch_tokens, training.steps * batch_tokens)
            if not last and _due(session.step, run.held_out_every):
                write("held_out", held_out(session, run.held_out_windows))
            if last or _due(session.step, run.sample_every):
                for prompt in run.prompts:
                    write("sample", {"prompt": prompt, "text": sample(session, prompt)})
            if last:
                write("held_out", held_out(session, None))
            stopped = session.processes.any(stop())
            if last or stopped or _due(session.step, run.checkpoint_every):
                log.sync()
                about = {
                    "step": session.step,
                    "seconds": session.seconds,
                    "fingerprint": session.fingerprint,
                }
                states.save(session.folder, session.tensors(), about)
            if stopped and not last:
                raise KeyboardInterrupt


def _assist(session: Session, stop: Callable[[], bool]) -> None:
    """The same steps in a process that writes nothing."""
    while session.step < session.config.training.steps:
        _learn(session)
        if session.processes.any(stop()) and session.step < session.config.training.steps:
            raise KeyboardInterrupt


def _learn(session: Session) -> dict[str, Any]:
    """One step; what the diary says of it."""
    begun = time.perf_counter()
    training, step = session.config.training, session.step
    ternary = session.ternary(step)
    loss = gradients(session, step, ternary)
    loss = session.processes.average(loss, session.network.weights)
    norm = session.optimizer.step(step)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TritError(
            f"{session.folder}: step {step + 1} has a loss of {loss} and a gradient of {norm}. "
            "Lower training.matrix_rate and training.rate, and begin in another folder."
        )
    session.step += 1
    spent = time.perf_counter() - begun
    session.seconds += spent
    tokens = training.batch * session.config.model.context
    return {
        "loss": loss,
        "rate": session.optimizer.scale * optimizers.factor(step, training) * training.matrix_rate,
        "norm": norm,
        "ternary": ternary,
        "tokens": session.step * tokens,
        "tokens_per_second": round(tokens / spent, 1),
        "seconds": round(session.seconds, 3),
    }


def gradients(session: Session, step: int, ternary: bool) -> float:
    """The loss of this process's share of a step's batch; its gradients are left in the weights."""
    config = session.config
    session.network.ternary = ternary
    rows = session.packed.batch(config.seed, step, config.training.batch)
    try:
        loss = session.network.loss(session.rows(session.processes.share(rows)))
        loss.backward()  # type: ignore[no-untyped-call]
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DoesNotFitError(
            "a step does not fit into memory: take a smaller training.batch or model.context, or "
            "training.gradient_checkpointing."
        ) from error
    return float(loss.detach())


def held_out(session: Session, limit: int | None) -> dict[str, Any]:
    """Nats per token and bits per byte of the text held out, or of `limit` windows of it."""
    session.network.ternary = session.ternary(session.step - 1)
    nats, tokens, count = 0.0, 0, 0
    with torch.no_grad():
        for window in session.packed.windows(limit):
            found = session.network.nats(session.rows(window)[None])
            nats += float(found.double().sum())
            tokens += found.numel()
            count += int(session.packed.lengths[window[1:]].sum())
    return {
        "nats_per_token": nats / tokens,
        "bits_per_byte": nats / math.log(2) / max(count, 1),
        "bytes": count,
    }


def sample(session: Session, prompt: str) -> str:
    """How the model goes on from a prompt; random numbers are keyed by seed and position."""
    config, network = session.config, session.network
    network.ternary = session.ternary(session.step - 1)
    tokens = session.tokenizer.encode(prompt, parse_special=False)
    tokens = tokens or [session.tokenizer.eos_id or 0]
    begun = len(tokens)
    with torch.no_grad():
        for position in range(begun, begun + config.run.sample_tokens):
            seen = tokens[-config.model.context :]
            logits = network.logits(session.rows(np.array([seen], np.int64)))[0, -1]
            shares = torch.softmax(logits.double() / SAMPLE_TEMPERATURE, dim=-1).cpu().numpy()
            drawn = np.random.default_rng([config.seed, position]).random()
            token = min(int(np.searchsorted(np.cumsum(shares), drawn)), len(shares) - 1)
            if token in session.tokenizer.eos_ids:
                break
            tokens.append(token)
    return session.tokenizer.decode(tokens[begun:], skip_special=True)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch on so many threads: the bits of its sums depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def device_of(training: Training) -> str:
    """cpu or cuda; UsageError where there is no GPU and one is wished for."""
    wished = training.device
    if wished == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.device is 'cuda', and torch finds no GPU here: take 'cpu'.")
    if wished == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wished
