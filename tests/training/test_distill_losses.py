"""What pulls a student, against sums written out and against what it promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch (extra train)")

import torch

from trit.evaluate._rows import Scorer
from trit.training.distill.losses import Relations, divergence, late, relation


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_divergence_is_that_of_the_evaluation() -> None:
    logits, base = 2 * random(7, 50), 2 * random(7, 50, seed=1)
    with Scorer(50, 1) as scorer:
        expected = scorer.compare(logits.numpy(), base.numpy(), np.zeros(7, np.int32))[:, 2]
    assert np.allclose(divergence(logits, base).numpy(), expected, rtol=1e-5)
    assert divergence(base, base).abs().max() < 1e-6


def test_gradients_of_the_divergence() -> None:
    base, logits = 2 * random(7, 50, seed=1).double(), 2 * random(7, 50).double().requires_grad_()
    assert torch.autograd.gradcheck(divergence, (logits, base))


@pytest.mark.parametrize("top_k", [1, 5, 49, 50, 60])
def test_the_rest_is_one_token(top_k: int) -> None:
    logits, base = (2 * random(7, 50, seed=seed).double() for seed in (0, 1))
    p, q = base.softmax(-1), logits.softmax(-1)
    order = p.argsort(-1, descending=True)
    p, q = p.gather(-1, order), q.gather(-1, order)
    if top_k < 50:
        p, q = (
            torch.cat([each[:, :top_k], each[:, top_k:].sum(-1, keepdim=True)], -1)
            for each in (p, q)
        )
    expected = (p * (p / q).log()).sum(-1)
    assert torch.allclose(divergence(logits, base, top_k), expected, rtol=1e-6)


def test_a_sure_teacher_leaves_no_rest() -> None:
    base, logits = torch.zeros(1, 9), random(1, 9).requires_grad_()
    base[0, 4] = 200.0
    loss = divergence(logits, base, 2).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_relations_are_the_same_in_another_basis() -> None:
    x = random(2, 6, 16)
    turned, _ = torch.linalg.qr(random(16, 16, seed=1))
    assert relation(x @ turned, x, 1).abs() < 1e-6
    assert relation(random(2, 6, 32, seed=2), x, 4) > 0.1  # widths may differ


def test_relations_are_balanced_against_what_arrives() -> None:
    mixer = SimpleNamespace(heads=4, kv_heads=2)
    layers = [SimpleNamespace(mixer=mixer)] * 4
    teacher: Any = SimpleNamespace(plan=SimpleNamespace(layers=layers), taps={})
    student: Any = SimpleNamespace(plan=SimpleNamespace(layers=layers), taps={})
    relations = Relations(teacher, student, share=0.25)
    assert list(student.taps) == [late(4)] == [3]
    teacher.taps[3]("q", random(2, 5, 16))
    source = random(2, 5, 16, seed=1).requires_grad_()
    made = source * 1.0
    student.taps[3]("q", made)
    given = 1e-4 * random(2, 5, 16, seed=2)
    (made * given).sum().backward()
    added = source.grad - given
    assert float(added.norm() / given.norm()) == pytest.approx(0.25, rel=1e-3)
    before = relations.loss()
    with torch.no_grad():  # against what was added, the loss falls
        moved = relation(source - 0.1 * added / added.norm(), random(2, 5, 16), 4)
    assert 0 < float(moved) < before
    assert relations.loss() == 0.0
    with torch.no_grad():
        student.taps[3]("q", source * 1.0)
    assert relations.loss() == 0.0  # a measurement pulls nothing
