"""A distillation in memory: its steps, what is measured on the way, the best student so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trit.errors import InvalidFileError
from trit.files.gguf import Tensor as FileTensor
from trit.training import log as logs
from trit.training import loop
from trit.training import state as states
from trit.training.data import Packed
from trit.training.distill.losses import Relations, divergence
from trit.training.distill.settings import DistillSettings
from trit.training.distill.student import Student
from trit.training.network import Network
from trit.training.optimizer import Optimizer
from trit.training.processes import Processes

BEST = "best.npz"
LOGITS = 1 << 25  # numbers of as many tokens as are in memory at the same time; 128 MiB an array


class Session:
    """A `loop.Work`. `best` is the mean KLD of the best measurement and its step."""

    remedy = "Lower --rate and --scale-rate, and begin in another folder."
    processes = Processes()

    def __init__(
        self,
        settings: DistillSettings,
        folder: Path,
        packed: Packed,
        teacher: Network,
        student: Student,
        device: torch.device,
        fingerprint: str,
    ) -> None:
        """Begin, or take up the state that the folder holds."""
        self.settings = settings
        self.folder = folder
        self.packed = packed
        self.teacher = teacher
        self.student = student
        student.network.ternary = settings.ternary
        self.device = device
        self.fingerprint = fingerprint
        self.step, self.seconds = 0, 0.0
        self.best: tuple[float, int] | None = None
        self.optimizer = Optimizer(student.parameters)
        self._rates = student.rates(settings.rate, settings.scale_rate)
        self._relations = (
            Relations(teacher, student.network, settings.relation) if settings.relation else None
        )
        self._seen: list[Tensor] = []  # what the teacher makes of the windows that are measured
        loop.load(self)
        if self.step:
            self.student.push()
            self.best = _best(folder, self.step)

    @property
    def steps(self) -> int:
        return self.settings.steps

    @property
    def step_tokens(self) -> int:
        return self.settings.batch * self.settings.context

    @property
    def checkpoint_every(self) -> int:
        return self.settings.checkpoint_every

    def tensors(self) -> dict[str, Tensor]:
        """All that a state holds."""
        return self.student.parameters | self.optimizer.state

    def learn(self) -> dict[str, Any]:
        """One step, as loop.Work has it."""
        values = self.gradients(self.step)
        factor = _factor(self.step, self.settings)
        norm = self.optimizer.step(self.step, self._rates, factor, 0.0, 0.0)
        self.student.push()
        return values | {"rate": factor * self.settings.rate, "norm": norm}

    def gradients(self, step: int) -> dict[str, float]:
        """The losses of a step's batch; their gradients are left in the parameters."""
        batch = self.packed.batch(self.settings.seed, step, self.settings.batch)
        rows = torch.from_numpy(batch).to(self.device)
        with loop.memory("take a smaller --batch or --context, or --gradient-checkpointing."):
            found = self._backward(rows[:, :-1], rows[:, 1:].flatten())
            self.student.pull()
        return found

    def _backward(self, tokens: Tensor, following: Tensor) -> dict[str, float]:
        """Head and losses a chunk of tokens at a time, so that no logits of all are kept."""
        network, weight = self.student.network, self.settings.cross_entropy
        with torch.no_grad():
            aims = self.teacher.hidden(tokens).flatten(0, 1)
        hidden = network.hidden(tokens)
        leaf = hidden.detach().flatten(0, 1).requires_grad_()
        kld = nats = 0.0
        step = max(1, LOGITS // network.plan.vocab_size)
        for at in range(0, len(leaf), step):
            chunk = slice(at, at + step)
            with torch.no_grad():
                base = self.teacher.head(aims[chunk])
            logits = network.head(leaf[chunk])
            loss = divergence(logits, base, self.settings.top_k).sum() / len(leaf)
            kld += float(loss.detach())
            if weight:
                entropy = functional.cross_entropy(logits, following[chunk], reduction="sum")
                nats += float(entropy.detach()) / len(leaf)
                loss = loss + weight * entropy / len(leaf)
            loss.backward()  # type: ignore[no-untyped-call]
        hidden.backward(leaf.grad.view_as(hidden))  # type: ignore[no-untyped-call, union-attr]
        found = {"loss": kld + weight * nats, "kld": kld}
        if weight:
            found["nats_per_token"] = nats
        if self._relations is not None:
            found["relation"] = self._relations.loss()
        return found

    def look(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The divergence on sequences that are not trained on; the best student is kept."""
        if self.step == self.steps or self.step % self.settings.measure_every == 0:
            found = self._measured()
            if self.best is None or found["kld"] < self.best[0]:
                self.best = (found["kld"], self.step)
                if self.step:
                    about = {"step": self.step, "fingerprint": self.fingerprint}
                    states.save(self.folder / BEST, self.student.parameters, about)
            yield "held_out", found | {"best_step": self.best[1]}

    @torch.no_grad()
    def _measured(self) -> dict[str, float]:
        windows = self.windows(0, self.settings.measure_windows)
        if not self._seen:
            self._seen = [self.teacher.hidden(self._row(each)) for each in windows]
        kld = same = 0.0
        count = 0
        for window, aims in zip(windows, self._seen, strict=True):
            base = self.teacher.head(aims[0])
            logits = self.student.network.head(self.student.network.hidden(self._row(window))[0])
            kld += float(divergence(logits, base).double().sum())
            same += float((logits.argmax(-1) == base.argmax(-1)).sum())
            count += len(base)
        return {"kld": kld / count, "same_top": same / count, "compared": count}

    def windows(self, half: int, limit: int) -> list[NDArray[np.int64]]:
        """Tokens (context + 1,) of the part held out: half 0 chooses the best student, half 1 tells
        how good it is."""
        every = list(self.packed.windows(None))[half::2]
        wanted = min(limit, len(every))
        return [every[place * len(every) // wanted] for place in range(wanted)]

    def teach(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The teacher's logits (n, vocab) on tokens (n,)."""
        return self._logits(self.teacher, tokens)

    def say(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The student's."""
        return self._logits(self.student.network, tokens)

    @torch.no_grad()
    def _logits(self, network: Network, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        row = torch.from_numpy(tokens[None]).to(self.device)
        found: NDArray[np.float32] = network.logits(row)[0].cpu().numpy()
        return found

    def _row(self, window: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(window[None, :-1]).to(self.device)

    def choose_best(self, start: Mapping[str, FileTensor]) -> int:
        """Bring the best student back; its step, 0 for the one that was begun with, `start`."""
        assert self.best is not None
        if self.best[1] == 0:
            self.student.show(start)
            return 0
        about = states.load(self.folder / BEST, self.student.parameters, self.fingerprint)
        if about is None or about["step"] != self.best[1]:
            raise InvalidFileError(
                self.folder / BEST, "", f"expected the student of step {self.best[1]}. "
                f"Remove {states.FILE} to begin again."
            )  # fmt: skip
        self.student.push()
        return int(str(about["step"]))


def _best(folder: Path, step: int) -> tuple[float, int]:
    """The best measurement of a diary up to a step."""
    found = [
        (entry["kld"], entry["step"])
        for entry in logs.read(folder)
        if entry["event"] == "held_out" and entry["step"] <= step
    ]
    if not found:
        raise InvalidFileError(
            folder / logs.FILE, "", "expected the measurements of this run, got none. "
            f"Remove {states.FILE} to begin again."
        )  # fmt: skip
    return min(found)


def _factor(step: int, settings: DistillSettings) -> float:
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return warm * (1.0 - step / settings.steps)
