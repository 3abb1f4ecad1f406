"""A run of `trit train` in memory: its first weights, its steps, what is measured on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trit.plan import Plan
from trit.runtime.tokenizer import Tokenizer
from trit.training import loop
from trit.training import network as networks
from trit.training import optimizer as optimizers
from trit.training.config import Config
from trit.training.data import Packed
from trit.training.processes import Processes

SAMPLE_TEMPERATURE = 0.8


@dataclass
class Session:
    """A run in memory: a `loop.Work`."""

    config: Config
    folder: Path
    twin: bool
    packed: Packed
    tokenizer: Tokenizer
    network: networks.Network
    optimizer: optimizers.Optimizer
    device: torch.device
    fingerprint: str
    processes: Processes
    step: int = 0
    seconds: float = 0.0
    remedy = "Lower training.matrix_rate and training.rate, and begin in another folder."

    @property
    def steps(self) -> int:
        return self.config.training.steps

    @property
    def step_tokens(self) -> int:
        return self.config.training.batch * self.config.model.context

    @property
    def checkpoint_every(self) -> int:
        return self.config.run.checkpoint_every

    def tensors(self) -> dict[str, Tensor]:
        """All that a state holds."""
        weights = {f"weight.{name}": each for name, each in self.network.weights.items()}
        return weights | self.optimizer.state

    def ternary(self, step: int) -> bool:
        """Whether weights are ternary in a step."""
        return not self.twin and optimizers.is_ternary(step, self.config.training)

    def learn(self) -> dict[str, Any]:
        """One step, as loop.Work has it."""
        training, step = self.config.training, self.step
        ternary = self.ternary(step)
        loss = gradients(self, step, ternary)
        loss = self.processes.average(loss, self.network.weights)
        matrices = set(networks.matrices(self.network.plan))
        rates = optimizers.rates(self.network.weights, matrices, training)
        factor = optimizers.factor(step, training) * (training.twin_rate if self.twin else 1.0)
        decay = optimizers.decay(step, training)
        norm = self.optimizer.step(step, rates, factor, decay, training.clip)
        rate = factor * training.matrix_rate
        return {"loss": loss, "rate": rate, "norm": norm, "ternary": ternary}

    def look(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Samples and the text held out, as loop.Work has it."""
        run, last = self.config.run, self.step == self.steps
        if self.step == 0:
            return
        if not last and loop.due(self.step, run.held_out_every):
            yield "held_out", held_out(self, run.held_out_windows)
        if last or loop.due(self.step, run.sample_every):
            for prompt in run.prompts:
                yield "sample", {"prompt": prompt, "text": sample(self, prompt)}
        if last:
            yield "held_out", held_out(self, None)

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
    device = processes.device(loop.device(training.device, "training.device"))
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
    matrices = networks.matrices(plan)
    optimizer = optimizers.Optimizer(weights, matrices if training.matrices == "muon" else ())
    session = Session(
        config, folder, twin, packed, tokenizer, network, optimizer, device, fingerprint, processes
    )
    loop.load(session)
    return session


def gradients(session: Session, step: int, ternary: bool) -> float:
    """The loss of this process's share of a step's batch; its gradients are left in the weights."""
    config = session.config
    session.network.ternary = ternary
    rows = session.packed.batch(config.seed, step, config.training.batch)
    remedy = "take a smaller training.batch or model.context, or training.gradient_checkpointing."
    with loop.memory(remedy):
        loss = session.network.loss(session.rows(session.processes.share(rows)))
        loss.backward()  # type: ignore[no-untyped-call]
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


def logits(session: Session, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of one sequence (n,) after the last step: float32 (n, vocab)."""
    session.network.ternary = session.ternary(session.step - 1)
    with torch.no_grad():
        found: np.ndarray[Any, Any] = (
            session.network.logits(session.rows(tokens[None]))[0].cpu().numpy()
        )
    return found


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
