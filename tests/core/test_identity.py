"""Logits are the same bits for any thread count, chunking and company, on every instruction set.

The design promises that on one instruction set. The kernels give more: their reductions have one
order everywhere, so all instruction sets agree, and that is held here too. (It stands on fused
multiply-adds and on tables of cos and sin from one machine's libm; between machines it may not.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, Tensors, small_plan

from trit import _core
from trit.engine import Engine, Rows
from trit.plan import Plan

Floats = NDArray[np.float32]

THREADS = (1, 2, 3, 4)
CHUNKS = (1, 7, 64, 512)
ROUNDED = [row["name"] for row in _core.formats() if row["integer"]]
FLOAT = [row["name"] for row in _core.formats() if not row["integer"]]
# Every format there is, in turn, through the linears of two models; the third has odd sizes, heads
# that fill no register, sinks, caps and every norm a layer can have.
MODELS = {
    "rounded": Parts(formats=ROUNDED, layers=2, window=40),
    "float": Parts(formats=FLOAT, layers=2, window=70),
    "odd": Parts(
        formats=("f32", "q8_0", "q4_1", "iq4_nl", "f16"), width=96, inner=160, heads=6,
        kv_heads=2, head_dim=48, vocab=37, window=70, extras=True,
    ),
    "experts": Parts(
        formats=("q4_k", "f32", "q8_0", "q5_k", "q6_k", "f16"), inner=512, experts=9, top_k=3,
        layers=2, window=40, extras=True,
    ),
    "many experts": Parts(formats=("q4_0", "q4_1"), inner=64, experts=70, top_k=8),
}  # fmt: skip
TOKENS = 100  # more than a page and more than the windows


@dataclass(frozen=True)
class Case:
    """A model, an instruction set, and the logits of every position in one pass on one thread."""

    plan: Plan
    tensors: Tensors
    tokens: list[int]
    expected: Floats
    scalar: bool  # slow, and what is shared out is the same: some of the ways will do

    def engine(self, threads: int = 2, batch: int = 256) -> Engine:
        return Engine(self.plan, self.tensors, threads=threads, ctx=256, batch=batch)


@pytest.fixture(scope="module")
def plans() -> dict[str, tuple[Plan, Tensors]]:
    return {name: small_plan(parts, seed=1) for name, parts in MODELS.items()}


@pytest.fixture(params=MODELS)
def case(
    request: pytest.FixtureRequest,
    isa: str,
    plans: dict[str, tuple[Plan, Tensors]],
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    monkeypatch.setenv("TRIT_ISA", isa)
    plan, tensors = plans[request.param]
    tokens = np.random.default_rng(3).integers(0, plan.vocab_size, TOKENS).tolist()
    engine = Engine(plan, tensors, threads=1, ctx=256, batch=512)
    assert engine.isa == isa
    expected = engine.forward(Rows.of(tokens), range(TOKENS))
    assert np.isfinite(expected).all() and expected.std() > 0.1
    return Case(plan, tensors, tokens, expected, isa == "scalar")


def in_pieces(engine: Engine, tokens: Sequence[int], size: int, sequence: int = 0) -> Floats:
    """The prompt fed `size` tokens at a time."""
    return np.concatenate(
        [
            engine.forward(Rows.of(piece, start, sequence), range(len(piece)))
            for start in range(0, len(tokens), size)
            for piece in [tokens[start : start + size]]
        ]
    )


def same(found: Floats, expected: Floats) -> bool:
    return found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", THREADS)
def test_threads_and_passes(case: Case, threads: int) -> None:
    every = threads in (1, 4) and not case.scalar
    for batch in CHUNKS if every else CHUNKS[1:3]:
        engine = case.engine(threads, batch)
        found = engine.forward(Rows.of(case.tokens), range(TOKENS))
        assert same(found, case.expected), batch


@pytest.mark.parametrize("size", CHUNKS)
def test_a_prompt_in_pieces(case: Case, size: int) -> None:
    assert same(in_pieces(case.engine(), case.tokens, size), case.expected)


def test_uneven_pieces_and_again_after_removal(case: Case) -> None:
    engine = case.engine(threads=3, batch=16)
    starts = [0, 1, 2, 5, 63, 64, 66]
    for first, last in zip(starts, [*starts[1:], TOKENS], strict=True):
        rows = Rows.of(case.tokens[first:last], first)
        assert same(engine.forward(rows, range(last - first)), case.expected[first:last]), first
    for keep in (90, 64, 33):
        engine.remove(0, keep)
        rows = Rows.of(case.tokens[keep:], keep)
        assert same(engine.forward(rows, range(TOKENS - keep)), case.expected[keep:]), keep


def test_few_outputs_are_those_of_all(case: Case) -> None:
    chosen = [0, 7, 8, 63, 98]
    found = case.engine(batch=7).forward(Rows.of(case.tokens), chosen)
    assert same(found, case.expected[chosen])


def test_company_changes_nothing(case: Case) -> None:
    """The sequence among three others, whose rows come before, after and between its own."""
    vocab, random = case.plan.vocab_size, np.random.default_rng(5)
    texts = {s: random.integers(0, vocab, n).tolist() for s, n in ((0, 30), (4, 110), (9, 77))}
    texts[2] = case.tokens
    for order, batch in ((1, 7),) if case.scalar else enumerate((64, 7, 512)):
        # Any order in which the rows of each sequence keep theirs.
        owners = np.repeat(list(texts), [len(text) for text in texts.values()])
        np.random.default_rng(order).shuffle(owners)
        positions = np.empty(len(owners), np.int64)
        for s, text in texts.items():
            positions[owners == s] = np.arange(len(text))
        tokens = [texts[s][p] for s, p in zip(owners, positions, strict=True)]
        rows = Rows(np.array(tokens, np.int32), owners.astype(np.int32), positions)
        asked = np.flatnonzero(owners == 2).tolist()
        found = case.engine(threads=2, batch=batch).forward(rows, asked)
        assert same(found, case.expected), order


def test_every_instruction_set_agrees(
    plans: dict[str, tuple[Plan, Tensors]], isas: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (plan, tensors) in plans.items():
        tokens = np.random.default_rng(3).integers(0, plan.vocab_size, TOKENS).tolist()
        found = {}
        for isa in isas:
            monkeypatch.setenv("TRIT_ISA", isa)
            engine = Engine(plan, tensors, threads=2, ctx=256, batch=64)
            assert engine.isa == isa
            found[isa] = engine.forward(Rows.of(tokens), range(TOKENS))
        for isa in isas:
            assert same(found[isa], found["scalar"]), f"{name} on {isa}"


PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Once upon a time there was a small engine that always gave the same answer, and",
)


def test_smollm2(
    zoo_model: Callable[[str], Path], isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short subset of benchmarks/identity.py on a real model; of scalar still less."""
    from trit import archs
    from trit.files import checkpoint
    from trit.runtime.tokenizer import Tokenizer

    path = zoo_model("smollm2-135m-instruct")
    monkeypatch.setenv("TRIT_ISA", isa)
    tokenizer = Tokenizer.from_gguf(path)
    prompts = [tokenizer.encode(text) for text in PROMPTS[: 1 if isa == "scalar" else None]]
    with checkpoint.open(path) as file:
        plan = archs.plan(file)

        def engine(threads: int, batch: int) -> Engine:
            return Engine(plan, file.tensors, threads=threads, ctx=128, batch=batch)

        alone = []
        one = engine(1, 512)
        for prompt in prompts:
            one.remove(0)
            alone.append(one.forward(Rows.of(prompt), range(len(prompt))))
        for threads, batch, size in ((2, 512, 512), (4, 7, 512), (3, 64, 1)):
            other = engine(threads, batch)
            for prompt, expected in zip(prompts, alone, strict=True):
                other.remove(0)
                assert same(in_pieces(other, prompt, size), expected), (threads, batch, size)
        together = [Rows.of(prompt, sequence=s) for s, prompt in enumerate(prompts)]
        rows = Rows(*(np.concatenate([getattr(r, part) for r in together])
                      for part in ("tokens", "sequences", "positions")))  # fmt: skip
        found = engine(2, 64).forward(rows, range(len(rows.tokens)))
        assert same(found, np.concatenate(alone))
