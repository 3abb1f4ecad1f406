"""Several processes that train one model, each on its share of every batch.

    accelerate launch --multi_gpu --num_processes 2 -m trit train story.toml
    torchrun --nproc-per-node 2 -m trit train story.toml

Either starts the same command once per process and names the others in the environment; Hugging
Face accelerate connects them. The gradients of a step are averaged over equal shares, which is the
gradient of the whole batch but for the order of its sums. The first process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trit.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count`; without an accelerator it is the only one."""

    rank: int = 0
    count: int = 1
    accelerator: Accelerator | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def device(self, wished: torch.device) -> torch.device:
        """This process's own of the kind that is wished for, cpu or cuda."""
        return wished if self.accelerator is None else self.accelerator.device

    def share(self, rows: Any) -> Any:
        """The part of a batch (batch, …) that is this process's."""
        return rows[self.rank :: self.count]

    def average(self, loss: float, weights: Mapping[str, Tensor]) -> float:
        """The mean loss of all; every gradient becomes the mean of all in its place."""
        if self.accelerator is None:
            return loss
        mine = {name: weight.grad for name, weight in weights.items()}
        means = self.accelerator.reduce(mine, reduction="mean")
        for name, weight in weights.items():
            weight.grad = means[name]
        return float(self._sum(loss)) / self.count

    def any(self, flag: bool) -> bool:
        """Whether one of the processes says so."""
        return flag if self.accelerator is None else bool(self._sum(float(flag)) > 0)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def _sum(self, value: float) -> Tensor:
        assert self.accelerator is not None
        mine = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        total: Tensor = self.accelerator.reduce(mine, reduction="sum")
        return total


def started(device: torch.device, batch: int) -> Processes:
    """Those that a launcher has started; this one alone where none has.

    UnsupportedError without accelerate; UsageError for a `batch` that has no equal shares.
    """
    count = count_started()
    if count == 1:
        return Processes()
    if batch % count:
        raise UsageError(
            f"training.batch is {batch}; expected a multiple of {count}, the number of processes."
        )
    try:
        from accelerate import Accelerator
    except ImportError:
        raise UnsupportedError(
            "training in several processes needs accelerate: pip install 'trit[train]'."
        ) from None
    accelerator = Accelerator(cpu=device.type == "cpu")
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator)


def count_started() -> int:
    """How many processes the launcher says it has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
