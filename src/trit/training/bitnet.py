"""BitNet b1.58's linear: ternary weights, activations of 8 bits, gradients as if neither were so.

    s = max(mean |W|, 1e-5)             digits q = clamp(round(W / s), -1, 1)       per matrix
    a = 127 / max(max |x|, 1e-5)        codes  c = clamp(round(x · a), -128, 127)   per token
    y = (c · qᵀ) · s / a
    backward: dx = dy · (q s),  dW = dyᵀ · (c / a)      (straight through both roundings)

Ma et al. 2024, arXiv:2402.17764; "BitNet b1.58: training tips, code and FAQ" (2024). Here the sum
runs over whole numbers, below 2^24 for any row of up to 132,000 weights: float32 gives it exactly,
whatever the order. What is kept for the backward pass is int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-5  # of mean |W| and of max |x|


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (rows, cols) -> digits of -1, 0, 1 (same shape and dtype) and their unit, a scalar."""
    unit = weight.abs().mean().clamp(min=SMALLEST)
    return (weight * (1.0 / unit)).round().clamp(-1, 1), unit


def codes_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Activations (..., cols) -> codes in -128..127 (same shape) and the unit of each token."""
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)
    return (x * scale).round().clamp(-128, 127), 1.0 / scale


class _BitLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        digits, unit = ternary(weight)
        codes, steps = codes_of(x.float())
        ctx.save_for_backward(codes.to(torch.int8), steps, digits.to(torch.int8), unit)
        ctx.kind = x.dtype
        # Whole numbers up to 128: bfloat16 holds them exactly, its sums it does not.
        sums = functional.linear(codes.to(x.dtype), digits.to(x.dtype))
        return (sums.float() * (steps * unit)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad = grads[0]
        codes, steps, digits, unit = ctx.saved_tensors
        kind = ctx.kind
        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_x = ((grad @ digits.to(kind)).float() * unit).to(kind)
        if ctx.needs_input_grad[1]:
            scaled = (grad.float() * steps).to(kind).flatten(0, -2)
            grad_w = (scaled.T @ codes.to(kind).flatten(0, -2)).float()
        return grad_x, grad_w


def bit_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., cols), float32 master weight (rows, cols) -> (..., rows) in x's dtype."""
    found: Tensor = _BitLinear.apply(x, weight)  # type: ignore[no-untyped-call]
    return found
