"""Small plans that the engine's tests share: what needs no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from small_plan import Parts, Tensors, small_plan

from trit.engine import Engine, Rows
from trit.plan import Plan

Floats = NDArray[np.float32]

TOKENS = 300  # above one pass of 256 rows, four pages of 64 positions, and every window

PLAIN = Parts(formats=("f32",), window=40)
# Heads of 24 in pages padded to 32, three query heads per key head, odd sizes, and every extra.
ODD = Parts(
    formats=("f32",), width=72, inner=52, heads=6, kv_heads=2, head_dim=24, vocab=37, layers=3,
    window=70, extras=True,
)  # fmt: skip
EXPERTS = Parts(formats=("f32",), inner=104, experts=5, top_k=2, vocab=90)
ODD_EXPERTS = replace(ODD, experts=11, top_k=11)
MODELS = {"plain": PLAIN, "odd": ODD, "experts": EXPERTS, "odd experts": ODD_EXPERTS}


def random_tokens(vocab: int, count: int = TOKENS, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab, count).tolist()


def all_logits(engine: Engine, tokens: list[int], start: int = 0, sequence: int = 0) -> Floats:
    return engine.forward(Rows.of(tokens, start, sequence), range(len(tokens)))


@dataclass(frozen=True)
class Model:
    plan: Plan
    tensors: Tensors
    tokens: list[int]

    def engine(self, threads: int = 2, batch: int = 256, ctx: int | None = None) -> Engine:
        return Engine(self.plan, self.tensors, threads=threads, batch=batch, ctx=ctx)

    @cached_property
    def logits(self) -> Floats:
        """Of all tokens, by an engine that has done nothing else."""
        return all_logits(self.engine(), self.tokens)


def made(name: str) -> Model:
    """One of MODELS, with tokens for it."""
    plan, tensors = small_plan(MODELS[name])
    return Model(plan, tensors, random_tokens(plan.vocab_size))
