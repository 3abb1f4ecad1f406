"""A model whose weights are what its file will decode to, and what gradients move in their stead.

Each tensor of the plan is a part: a packed matrix (quantizers/_trainable.py), or plain numbers. The
network computes with the parts' values; `pull` brings the gradients of the values to the parts'
parameters, `push` the new values to the network. So no graph spans both, and nothing is kept but
parameters, values and the gradients of either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trit import archs
from trit.files.gguf import Tensor as FileTensor
from trit.formats import Format
from trit.plan import Plan
from trit.quantizers._trainable import TRAINABLE, Bytes, Trainable
from trit.training.network import Network, matrices

PLAIN = ("f32", "f16", "bf16")
# Rates of parameters beside the weights, as a multiple of the block scales' own: integers move in
# steps of one, most are near half of 31 or 63; an offset is about eight units of d.
_PACE = {"d": 1.0, "m": 1.0, "scales": 16.0, "mins": 16.0}
_OFFSET_PACE = 8.0


class Plain:
    """A tensor of plain numbers as a part: what is trained is float32, its values are rounded."""

    def __init__(self, tensor: FileTensor, device: torch.device) -> None:
        self.format: Format = tensor.format
        weights = torch.from_numpy(tensor.decode()).to(device)
        self.parameters = {"weights": weights.requires_grad_()}

    def values(self) -> Tensor:
        """What the file will decode to; no gradients pass."""
        kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
        return self.parameters["weights"].detach().to(kinds[self.format.name]).float()

    def confine(self) -> None:
        """Nothing is out of bounds."""

    def pack(self) -> Bytes:
        """The file's bytes, uint8 (*shape[:-1], row_bytes)."""
        array = self.values().cpu().numpy()
        assert self.format.encode is not None
        return self.format.encode(array).reshape(*array.shape[:-1], -1)


class Student:
    """The network of a model in a file, and its parts by tensor name.

    `network.weights` of a tensor that is not trained, for its format has no part, want no gradient;
    `fixed` has their names.
    """

    def __init__(self, network: Network, parts: Mapping[str, Plain | Trainable]) -> None:
        self.network = network
        self.parts = dict(parts)
        self.fixed = sorted(set(network.weights) - set(parts))
        self.parameters = {
            f"{name}.{kind}": each
            for name, part in self.parts.items()
            for kind, each in part.parameters.items()
        }

    def pull(self) -> None:
        """From the gradients of the network's weights, which end, those of the parameters."""
        for name, part in self.parts.items():
            weight = self.network.weights[name]
            assert weight.grad is not None, f"{name} has no gradient"
            if isinstance(part, Trainable):
                values = part.values(known=weight.detach())
                values.backward(weight.grad)  # type: ignore[no-untyped-call]
            else:
                part.parameters["weights"].grad = weight.grad
            weight.grad = None

    @torch.no_grad()
    def push(self) -> None:
        """Bring the parameters within bounds, and their values to the network."""
        for name, part in self.parts.items():
            part.confine()
            self.network.weights[name].copy_(part.values())

    @torch.no_grad()
    def show(self, tensors: Mapping[str, FileTensor]) -> None:
        """Let the network have the values of a file, whatever the parameters are."""
        for name in self.parts:
            self.network.weights[name].copy_(torch.from_numpy(tensors[name].decode()))

    def rates(self, rate: float, scale_rate: float) -> dict[str, float]:
        """How fast each parameter moves: weights by `rate` times what theirs are in root mean
        square now, scales by `scale_rate` of themselves."""
        found = {}
        for name, part in self.parts.items():
            paces = dict(_PACE) if "mins" in part.parameters else _PACE | {"m": _OFFSET_PACE}
            for kind, each in part.parameters.items():
                size = float(each.detach().square().mean().sqrt())
                found[f"{name}.{kind}"] = (
                    rate * size if kind == "weights" else scale_rate * paces[kind]
                )
        return found


def read(
    plan: Plan,
    tensors: Mapping[str, FileTensor],
    origins: Mapping[str, FileTensor],
    device: torch.device,
    compute: torch.dtype,
    checkpointing: bool,
) -> Student:
    """The student that a file is, by its plan and tensors.

    `origins` has the weights before they were rounded, of tensors that have the same name and
    shape: where a weight stood between two levels, it begins there.
    """
    weights, parts = {}, {}
    for name in used(plan):
        tensor = tensors[name]
        origin = origins.get(name)
        if origin is None or origin.shape != tensor.shape:
            origin = tensor
        part = _part(tensor, origin, device)
        weight = torch.from_numpy(tensor.decode()).to(device)
        weights[name] = weight.requires_grad_(part is not None)
        if part is not None:
            parts[name] = part
    network = Network(plan, weights, compute=compute, checkpointing=checkpointing)
    return Student(network, parts)


def _part(tensor: FileTensor, origin: FileTensor, device: torch.device) -> Plain | Trainable | None:
    if tensor.format.name in PLAIN:
        return Plain(tensor, device)
    if tensor.format.name not in TRAINABLE or len(tensor.shape) != 2:
        return None
    packed = np.array(tensor.data)
    return Trainable(origin.decode(), tensor.format.name, packed, train="weights", device=device)


def frozen(
    plan: Plan, tensors: Mapping[str, FileTensor], device: torch.device, compute: torch.dtype
) -> Network:
    """A network without gradients: a teacher."""
    weights = {name: torch.from_numpy(tensors[name].decode()).to(device) for name in used(plan)}
    return Network(plan, weights, compute=compute)


def used(plan: Plan) -> list[str]:
    """Names of the tensors that a dense plan computes with, each once."""
    names = [plan.embedding, plan.head.weight, *archs.vectors(plan), *matrices(plan)]
    return list(dict.fromkeys(names))
