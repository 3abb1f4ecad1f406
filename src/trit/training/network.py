"""A plan in torch for training: batches of sequences, gradients everywhere, ternary if wished.

Reads the same plan as reference.py, which stays the oracle: with `ternary` off both compute the
same function, of every plan without experts. Ternary are the linears of the layers (bitnet.py);
embedding, norms and head are floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import checkpoint

from trit import archs
from trit.errors import UnsupportedError
from trit.plan import Attention, FeedForward, GatedFeedForward, Layer, Linear, Norm, Plan
from trit.plan import MixtureOfExperts as Experts
from trit.reference import activate, rotate, soft_cap
from trit.training.bitnet import bit_linear

Tap = Callable[[str, Tensor], None]  # "q", "k" or "v", and what the linear gave (batch, n, …)


def require_dense(plan: Plan) -> None:
    """UnsupportedError for a mixture of experts."""
    if any(isinstance(layer.feed_forward, Experts) for layer in plan.layers):
        raise UnsupportedError(
            f"{plan.arch}: training a mixture of experts is not supported; take a dense model."
        )


class Network:
    """A plan with its weights (GGUF names -> float32 tensors).

    ternary        whether the layers' linears are
    taps           who is told what q, k and v of a layer are, by the layer's number
    compute        the dtype of activations; norms and the loss are always float32
    checkpointing  keep one hidden state per layer and compute the rest again: memory for time

    Raises UnsupportedError for a mixture of experts.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, Tensor],
        *,
        compute: torch.dtype = torch.float32,
        checkpointing: bool = False,
    ) -> None:
        require_dense(plan)
        self.plan = plan
        self.weights = dict(weights)
        self.compute = compute
        self.checkpointing = checkpointing
        self.ternary = False
        self.taps: dict[int, Tap] = {}

    def logits(self, tokens: Tensor) -> Tensor:
        """Token ids (batch, n) int64 -> float32 (batch, n, vocab)."""
        return self.head(self.hidden(tokens))

    def hidden(self, tokens: Tensor) -> Tensor:
        """Token ids (batch, n) int64 -> what the last layer gives, (batch, n, width)."""
        embedded = self.weights[self.plan.embedding][tokens] * self.plan.embedding_scale
        hidden = embedded.to(self.compute)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        for number, layer in enumerate(self.plan.layers):
            if self.checkpointing and torch.is_grad_enabled() and number not in self.taps:
                hidden = checkpoint.checkpoint(
                    self._layer, number, layer, hidden, positions, use_reentrant=False
                )
            else:
                hidden = self._layer(number, layer, hidden, positions)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (…, width) of the last layer -> float32 logits (…, vocab)."""
        normed = self._norm(self.plan.output_norm, hidden)
        logits = self._plain(self.plan.head, normed).float() * self.plan.head_scale
        return soft_cap(logits, self.plan.head_soft_cap)

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

    def _layer(self, number: int, layer: Layer, hidden: Tensor, positions: Tensor) -> Tensor:
        normed = self._norm(layer.mixer_norm, hidden)
        mixed = self._attend(layer.mixer, normed, positions, self.taps.get(number))
        hidden = hidden + self._norm(layer.mixer_post_norm, mixed)
        fed = self._feed(layer.feed_forward, self._norm(layer.feed_forward_norm, hidden))
        return hidden + self._norm(layer.feed_forward_post_norm, fed)

    def _attend(self, part: Attention, x: Tensor, positions: Tensor, tap: Tap | None) -> Tensor:
        batch, n, _ = x.shape
        made = {"q": part.q, "k": part.k, "v": part.v}
        found = {name: self._linear(linear, x) for name, linear in made.items()}
        for name, each in found.items():
            if tap is not None:
                tap(name, each)
        q, k, v = (each.view(batch, n, -1, part.head_dim) for each in found.values())
        q, k = self._norm(part.q_norm, q), self._norm(part.k_norm, k)
        if part.rope is not None:
            q, k = (rotate(part.rope, each.float(), positions).to(self.compute) for each in (q, k))
        group = part.heads // part.kv_heads
        q, k, v = (
            each.repeat_interleave(times, dim=2).transpose(1, 2)
            for each, times in ((q, 1), (k, group), (v, group))
        )
        mixed = self._mixed(part, q, k, v, positions).transpose(1, 2).reshape(batch, n, -1)
        return self._linear(part.output, self._norm(part.sub_norm, mixed))

    def _mixed(self, part: Attention, q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
        """What each head reads: q, k, v (batch, heads, n, head_dim) -> the same shape."""
        fused = functional.scaled_dot_product_attention
        distance = positions[:, None] - positions[None, :]
        seen = distance >= 0
        if part.window is not None:
            seen = seen & (distance < part.window)
        if part.soft_cap is None and part.sinks is None:
            if part.window is None or part.window >= len(positions):
                return fused(q, k, v, is_causal=True, scale=part.scale)
            return fused(q, k, v, attn_mask=seen, scale=part.scale)
        scores = soft_cap((q @ k.transpose(-1, -2)).float() * part.scale, part.soft_cap)
        scores = scores.masked_fill(~seen, float("-inf"))
        if part.sinks is not None:
            sink = self.weights[part.sinks].view(-1, 1, 1).expand(len(q), -1, len(positions), 1)
            scores = torch.cat([scores, sink], dim=-1)
        shares = torch.softmax(scores, dim=-1)[..., : len(positions)]
        return shares.to(v.dtype) @ v

    def _feed(self, part: FeedForward, x: Tensor) -> Tensor:
        assert not isinstance(part, Experts), "refused at the start"
        inner = self._linear(part.up, x)
        if isinstance(part, GatedFeedForward):
            inner = activate(part.activation, self._linear(part.gate, x)) * inner
            inner = self._norm(part.sub_norm, inner)
        else:
            inner = activate(part.activation, inner)
        return self._linear(part.down, inner)

    def _linear(self, part: Linear, x: Tensor) -> Tensor:
        if not self.ternary:
            return self._plain(part, x)
        assert part.bias is None and part.row_start == 0, "no plan of BitNet has these"
        return bit_linear(x, self.weights[part.weight])

    def _plain(self, part: Linear, x: Tensor) -> Tensor:
        chosen = slice(part.row_start, part.row_start + part.rows)
        bias = None if part.bias is None else self.weights[part.bias][chosen].to(self.compute)
        weight = self.weights[part.weight].reshape(-1, part.cols)[chosen]
        return functional.linear(x, weight.to(self.compute), bias)

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
