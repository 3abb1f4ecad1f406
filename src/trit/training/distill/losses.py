"""What a student is pulled by: the teacher's distribution, and relations at one late layer.

Forward KL (Hinton et al. 2015, arXiv:1503.02531, at temperature 1) of every token over the whole
vocabulary, or over the teacher's likeliest tokens and the rest as one more. Relations (MiniLMv2:
Wang et al. 2021, arXiv:2012.15828; at one late layer as BitDistill has them, arXiv:2510.13998): how
much the query, key and value of a token are like those of each other token, which students of any
width can copy.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trit.training.network import Network


def divergence(logits: Tensor, base: Tensor, top_k: int = 0) -> Tensor:
    """KL(base ‖ logits) in nats of each row: float32 (n, vocab) twice -> (n,).

    top_k: tokens to tell apart, the likeliest under `base`; all others are one. 0: all of them.
    Gradients are those of `logits`.
    """
    if not top_k or top_k >= base.shape[-1]:
        whole: Tensor = _Divergence.apply(logits, base)  # type: ignore[no-untyped-call]
        return whole
    q, p = functional.log_softmax(logits, dim=-1), functional.log_softmax(base, dim=-1)
    p, chosen = p.topk(top_k, dim=-1)
    q = q.gather(-1, chosen)
    p, q = (torch.cat([each, _rest(each)], dim=-1) for each in (p, q))
    found: Tensor = (p.exp() * (p - q)).sum(dim=-1)
    return found


class _Divergence(torch.autograd.Function):
    """Over the whole vocabulary. Of the student's logits the gradient is its probabilities less the
    teacher's: known at once, and the only array that is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, base: Tensor) -> Tensor:
        q, p = functional.log_softmax(logits, dim=-1), functional.log_softmax(base, dim=-1)
        shares = p.exp()
        found: Tensor = torch.linalg.vecdot(shares, p.sub_(q))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(q.exp_().sub_(shares))
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (difference,) = ctx.saved_tensors
        return difference * grads[0][:, None], None


def _rest(chosen: Tensor) -> Tensor:
    """The log of what is left of 1 beside chosen probabilities' logs: (n, k) -> (n, 1)."""
    least = torch.finfo(chosen.dtype).eps
    return torch.log1p(-chosen.exp().sum(dim=-1, keepdim=True).clamp(max=1 - least))


def relation(x: Tensor, base: Tensor, heads: int) -> Tensor:
    """How far relations among tokens are from those of the teacher, in nats per token and head.

    x (batch, n, width) and base (batch, n, their width), cut into `heads` parts each; of a token,
    relations are the softmax of its scaled products with all tokens.
    """
    q, p = (functional.log_softmax(_products(each, heads), dim=-1) for each in (x, base))
    return (p.exp() * (p - q)).sum(dim=-1).mean()


def _products(x: Tensor, heads: int) -> Tensor:
    batch, n, width = x.shape
    parts = x.float().view(batch, n, heads, width // heads).transpose(1, 2)
    products: Tensor = parts @ parts.transpose(-1, -2) * (width // heads) ** -0.5
    return products


class Relations:
    """The relation loss of q, k and v of one layer, balanced against all other losses.

    Its gradient comes to where the student's q, k and v are made, and there it is given `share` of
    the norm of the gradient that arrives from the other losses: whatever its own size.
    """

    def __init__(self, teacher: Network, student: Network, share: float) -> None:
        self._share = share
        self._aims: dict[str, Tensor] = {}
        self._found: list[float] = []
        ours, theirs = (late(len(each.plan.layers)) for each in (student, teacher))
        mixers = student.plan.layers[ours].mixer, teacher.plan.layers[theirs].mixer
        self._heads = {
            name: gcd(*(each.heads if name == "q" else each.kv_heads for each in mixers))
            for name in ("q", "k", "v")
        }
        teacher.taps[theirs] = self._aim
        student.taps[ours] = self._pull

    def loss(self) -> float:
        """The mean over q, k and v since it was asked last; 0 if there was nothing."""
        found, self._found = self._found, []
        return sum(found) / max(1, len(found))

    def _aim(self, name: str, made: Tensor) -> None:
        self._aims[name] = made

    def _pull(self, name: str, made: Tensor) -> None:
        if not made.requires_grad:
            return
        leaf = made.detach().requires_grad_()
        loss = relation(leaf, self._aims[name], self._heads[name])
        (pull,) = torch.autograd.grad(loss, leaf)
        self._found.append(float(loss.detach()))
        size = pull.norm()

        def added(gradient: Tensor) -> Tensor:
            scale = self._share * gradient.norm() / size.clamp(min=torch.finfo(size.dtype).tiny)
            balanced: Tensor = gradient + scale * pull
            return balanced

        made.register_hook(added)  # type: ignore[no-untyped-call]


def late(layers: int) -> int:
    """The number of the layer whose relations are copied: three quarters of the way."""
    return min(layers - 1, layers * 3 // 4)
