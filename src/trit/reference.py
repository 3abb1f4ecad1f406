"""Run a plan in torch: float32, slow, exact, differentiable.

The oracle of the tests and the ground of training: no cache, no batches, no quantized arithmetic.
Every weight is decoded to floats once and kept; operations follow the plan's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from trit.errors import UnsupportedError
from trit.plan import (
    Activation,
    Attention,
    FeedForward,
    GatedFeedForward,
    Layer,
    Linear,
    MixtureOfExperts,
    Norm,
    Plan,
    Rope,
)

if TYPE_CHECKING:
    import torch

    Matrix = torch.Tensor


class _Tensor(Protocol):
    def decode(self) -> npt.NDArray[np.float32]: ...


class Reference:
    """A plan and its weights, ready to run.

    `tensors` maps GGUF names to tensors that `decode()` to float32. `dtype` is torch.float32 or
    torch.float64 by name; float64 shows how much of a difference is rounding. With `half_cache`
    keys and values are rounded to float16, as the engine's cache stores them: what then still
    differs is the engine's arithmetic. Raises UnsupportedError when torch is not installed.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, _Tensor],
        dtype: str = "float32",
        half_cache: bool = False,
    ) -> None:
        try:
            import torch
        except ImportError:
            raise UnsupportedError(
                "the reference executor needs torch: pip install 'trit[train]'."
            ) from None
        self.plan = plan
        self.dtype = {"float32": torch.float32, "float64": torch.float64}[dtype]
        self.half_cache = half_cache
        self._tensors = tensors
        self._weights: dict[str, Matrix] = {}

    def weight(self, name: str) -> Matrix:
        """The weight as a torch tensor of its own shape, decoded at first use and then kept.

        Setting `requires_grad` on what this returns makes `forward` differentiable in it.
        """
        import torch

        if name not in self._weights:
            array = np.ascontiguousarray(self._tensors[name].decode())
            self._weights[name] = torch.from_numpy(array).to(self.dtype)
        return self._weights[name]

    def put(self, weights: Mapping[str, Matrix]) -> None:
        """Compute with these weights, by name and in their own shapes, in place of the model's."""
        self._weights.update(weights)

    def forward(self, tokens: npt.ArrayLike) -> Matrix:
        """Logits (n, vocab) of every position of one sequence of token ids (n,)."""
        import torch

        hidden = self.embed(tokens)
        positions = torch.arange(len(hidden))
        for layer in self.plan.layers:
            hidden = self.layer(layer, hidden, positions)
        return self.head(hidden)

    def embed(self, tokens: npt.ArrayLike) -> Matrix:
        """Token ids (n,) -> hidden states (n, width)."""
        import torch

        ids = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
        return self.weight(self.plan.embedding)[ids] * self.plan.embedding_scale

    def layer(self, layer: Layer, hidden: Matrix, positions: Matrix) -> Matrix:
        """One layer: hidden (n, width), positions (n,) -> (n, width)."""
        mixed = self._attend(layer.mixer, self._norm(layer.mixer_norm, hidden), positions)
        hidden = hidden + self._norm(layer.mixer_post_norm, mixed)
        fed = self._feed(layer.feed_forward, self._norm(layer.feed_forward_norm, hidden))
        return hidden + self._norm(layer.feed_forward_post_norm, fed)

    def head(self, hidden: Matrix) -> Matrix:
        """Hidden states (n, width) -> logits (n, vocab)."""
        normed = self._norm(self.plan.output_norm, hidden)
        logits = self._linear(self.plan.head, normed) * self.plan.head_scale
        return soft_cap(logits, self.plan.head_soft_cap)

    def _attend(self, part: Attention, x: Matrix, positions: Matrix) -> Matrix:
        import torch

        n = len(x)
        q = self._linear(part.q, x).view(n, part.heads, part.head_dim)
        k = self._linear(part.k, x).view(n, part.kv_heads, part.head_dim)
        v = self._linear(part.v, x).view(n, part.kv_heads, part.head_dim)
        q, k = self._norm(part.q_norm, q), self._norm(part.k_norm, k)
        if part.rope is not None:
            q, k = rotate(part.rope, q, positions), rotate(part.rope, k, positions)
        if self.half_cache:
            k, v = k.half().to(self.dtype), v.half().to(self.dtype)
        group = part.heads // part.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * part.scale
        scores = soft_cap(scores, part.soft_cap)
        distance = positions[:, None] - positions[None, :]
        hidden = distance < 0
        if part.window is not None:
            hidden = hidden | (distance >= part.window)
        scores = scores.masked_fill(hidden, float("-inf"))
        if part.sinks is not None:
            sink = self.weight(part.sinks).view(part.heads, 1, 1).expand(-1, n, 1)
            shares = torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]
        else:
            shares = torch.softmax(scores, dim=-1)
        mixed = torch.einsum("hqk,khd->qhd", shares, v).reshape(n, part.heads * part.head_dim)
        return self._linear(part.output, self._norm(part.sub_norm, mixed))

    def _feed(self, part: FeedForward, x: Matrix) -> Matrix:
        if isinstance(part, MixtureOfExperts):
            return self._mix(part, x)
        inner = self._linear(part.up, x)
        if isinstance(part, GatedFeedForward):
            inner = activate(part.activation, self._linear(part.gate, x)) * inner
            inner = self._norm(part.sub_norm, inner)
        else:
            inner = activate(part.activation, inner)
        return self._linear(part.down, inner)

    def _mix(self, part: MixtureOfExperts, x: Matrix) -> Matrix:
        import torch

        shares = torch.softmax(self._linear(part.router, x), dim=-1)
        # Stable: of equal probabilities the lower index comes first.
        order = torch.argsort(shares, dim=-1, descending=True, stable=True)[:, : part.top_k]
        chosen = shares.gather(-1, order)
        if part.renormalize:
            chosen = chosen / chosen.sum(dim=-1, keepdim=True)
        weights = torch.zeros_like(shares).scatter(-1, order, chosen * part.scale)
        mixed = torch.zeros_like(x)
        for expert in sorted(set(order.flatten().tolist())):
            rows = (order == expert).any(dim=-1).nonzero()[:, 0]
            gate, up, down = (
                self.weight(stack.weight)[expert] for stack in (part.gate, part.up, part.down)
            )
            inner = activate(part.activation, x[rows] @ gate.T) * (x[rows] @ up.T)
            share = weights[rows, expert, None]
            mixed = mixed.index_add(0, rows, share * (inner @ down.T))
        if part.shared is None:
            return mixed
        shared = self._feed(part.shared.part, x)
        if part.shared.gate is not None:
            shared = torch.sigmoid(self._linear(part.shared.gate, x)) * shared
        return mixed + shared

    def _linear(self, part: Linear, x: Matrix) -> Matrix:
        import torch

        chosen = slice(part.row_start, part.row_start + part.rows)
        bias = None if part.bias is None else self.weight(part.bias)[chosen]
        # A matrix of one row may be stored as a vector.
        weight = self.weight(part.weight).reshape(-1, part.cols)
        return torch.nn.functional.linear(x, weight[chosen], bias)

    def _norm(self, norm: Norm | None, x: Matrix) -> Matrix:
        import torch

        if norm is None:
            return x
        scale = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + norm.eps)
        return x * scale * self.weight(norm.weight)


def rotate(rope: Rope, x: Matrix, positions: Matrix) -> Matrix:
    """Turn the pairs of each head: x (…, n, heads, head_dim), positions (n,) -> the same shape."""
    import torch

    frequencies = torch.tensor(rope.inv_freq, dtype=x.dtype, device=x.device)
    angles = positions.to(x.dtype)[:, None, None] * frequencies
    cos, sin = angles.cos() * rope.magnitude, angles.sin() * rope.magnitude
    size = len(rope.inv_freq)
    turned, rest = x[..., : 2 * size], x[..., 2 * size :]
    if rope.pairs == "halves":
        a, b = turned[..., :size], turned[..., size:]
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    else:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return torch.cat([turned, rest], dim=-1)


def activate(activation: Activation, x: Matrix) -> Matrix:
    """The activation of a feed-forward, of each value of x."""
    import torch

    if activation == "silu":
        return torch.nn.functional.silu(x)
    if activation == "gelu":
        return torch.nn.functional.gelu(x, approximate="tanh")
    return torch.relu(x).square()


def soft_cap(x: Matrix, cap: float | None) -> Matrix:
    """x squeezed smoothly into -cap … cap; as it is without a cap."""
    return x if cap is None else (x / cap).tanh() * cap
