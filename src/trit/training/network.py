"""A plan in torch for training: batches of sequences, ternary linears, gradients everywhere.

Reads the same plan as reference.py, which stays the oracle: with `ternary` off both compute the
same function. Linears of the layers are BitNet's (bitnet.py); embedding, norms and head are floats.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import checkpoint

from trit import archs
from trit.errors import UnsupportedError
from trit.plan import Attention, GatedFeedForward, Layer, Linear, Norm, Plan
from trit.reference import rotate
from trit.training.bitnet import bit_linear


class Network:
    """A plan with its weights (GGUF names -> float32 tensors, the masters).

    ternary        whether the layers' linears are
    compute        the dtype of activations; norms and the loss are always float32
    checkpointing  keep one hidden state per layer and compute the rest again: memory for time
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, Tensor],
        *,
        compute: torch.dtype = torch.float32,
        checkpointing: bool = False,
    ) -> None:
        _check(plan)
        self.plan = plan
        self.weights = dict(weights)
        self.compute = compute
        self.checkpointing = checkpointing
        self.ternary = False

    def logits(self, tokens: Tensor) -> Tensor:
        """Token ids (batch, n) int64 -> float32 (batch, n, vocab)."""
        hidden = self.weights[self.plan.embedding][tokens].to(self.compute)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        for layer in self.plan.layers:
            if self.checkpointing and torch.is_grad_enabled():
                hidden = checkpoint.checkpoint(
                    self._layer, layer, hidden, positions, use_reentrant=False
                )
            else:
                hidden = self._layer(layer, hidden, positions)
        normed = self._norm(self.plan.output_norm, hidden)
        return functional.linear(normed, self._cast(self.plan.head)).float()

    def loss(self, rows: Tensor) -> Tensor:
        """Mean nats per token of rows (batch, n + 1) int64, each predicted from those before."""
        return self._nats(rows, "mean")

    def nats(self, rows: Tensor) -> Tensor:
        """Nats of each predicted token: rows (batch, n + 1) -> float32 (batch, n)."""
        return self._nats(rows, "none").view(rows.shape[0], -1)

    def _nats(self, rows: Tensor, reduction: str) -> Tensor:
        logits = self.logits(rows[:, :-1])
        return functional.cross_entropy(
            logits.flatten(0, 1), rows[:, 1:].flatten(), reduction=reduction
        )

    def _layer(self, layer: Layer, hidden: Tensor, positions: Tensor) -> Tensor:
        mixed = self._attend(layer.mixer, self._norm(layer.mixer_norm, hidden), positions)
        hidden = hidden + mixed
        assert isinstance(layer.feed_forward, GatedFeedForward)
        return hidden + self._feed(layer.feed_forward, self._norm(layer.feed_forward_norm, hidden))

    def _attend(self, part: Attention, x: Tensor, positions: Tensor) -> Tensor:
        batch, n, _ = x.shape
        q, k, v = (
            self._linear(each, x).view(batch, n, -1, part.head_dim)
            for each in (part.q, part.k, part.v)
        )
        if part.rope is not None:
            q, k = (rotate(part.rope, each.float(), positions).to(self.compute) for each in (q, k))
        group = part.heads // part.kv_heads
        q, k, v = (
            each.repeat_interleave(times, dim=2).transpose(1, 2)
            for each, times in ((q, 1), (k, group), (v, group))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=part.scale)
        mixed = mixed.transpose(1, 2).reshape(batch, n, -1)
        return self._linear(part.output, self._norm(part.sub_norm, mixed))

    def _feed(self, part: GatedFeedForward, x: Tensor) -> Tensor:
        gate = self._linear(part.gate, x)
        inner = torch.relu(gate).square() * self._linear(part.up, x)
        return self._linear(part.down, self._norm(part.sub_norm, inner))

    def _linear(self, part: Linear, x: Tensor) -> Tensor:
        if self.ternary:
            return bit_linear(x, self.weights[part.weight])
        return functional.linear(x, self._cast(part))

    def _cast(self, part: Linear) -> Tensor:
        return self.weights[part.weight].to(self.compute)

    def _norm(self, norm: Norm | None, x: Tensor) -> Tensor:
        if norm is None:
            return x
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + norm.eps)
        return (wide * scale * self.weights[norm.weight]).to(self.compute)


def matrices(plan: Plan) -> list[str]:
    """Names of the layers' matrices, which are ternary and which Muon moves."""
    return [part.weight for layer in plan.layers for part in archs.linears(layer).values()]


def initial(plan: Plan, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Weights to begin with, by GGUF name, the same for the same seed.

    Norms are 1; what is added to the residual (`output`, `down`) begins at 0, so that every layer
    begins as nothing; the other matrices have a variance of 1/cols, the embedding a deviation of
    0.02.
    """
    random = torch.Generator().manual_seed(seed)
    added = {
        part.weight
        for layer in plan.layers
        for role, part in archs.linears(layer).items()
        if role in ("output", "down")
    }
    weights = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape)
        elif name in added:
            weights[name] = torch.zeros(shape)
        else:
            deviation = 0.02 if name in (plan.embedding, plan.head.weight) else shape[1] ** -0.5
            weights[name] = torch.randn(shape, generator=random) * deviation
    return weights


def _check(plan: Plan) -> None:
    """Only what is computed here; a plan says more than BitNet needs."""
    for layer in plan.layers:
        mixer, feed = layer.mixer, layer.feed_forward
        plain = isinstance(feed, GatedFeedForward) and feed.activation == "relu2"
        extras = (
            mixer.q_norm, mixer.k_norm, mixer.window, mixer.soft_cap, mixer.sinks,
            layer.mixer_post_norm, layer.feed_forward_post_norm, plan.head_soft_cap,
        )  # fmt: skip
        biases = [part.bias for part in archs.linears(layer).values()]
        if not plain or any(each is not None for each in (*extras, *biases)):
            raise UnsupportedError(f"training {plan.arch} is not supported; trit trains BitNet.")
