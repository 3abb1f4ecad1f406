"""Muon, AdamW and the schedules against what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_run
from trit.training import config as configs

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
optimizers = pytest.importorskip("trit.training.optimizer")


def training(tmp_path: Path, changes: str = "") -> configs.Training:
    return configs.load(tiny_run.write(tmp_path, {"warmup = 2": changes})).training


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (32, 32)])
def test_a_move_of_muon_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    made = optimizers.orthogonal(torch.randn(shape, generator=random) * 1e-3)
    values = torch.linalg.svdvals(made)
    assert made.shape == shape
    # The polynomial keeps what has come near 1 within 0.7 … 1.2; a square matrix has values near 0.
    assert values.max() < 1.3 and values.median() > 0.65


def test_adamw_is_that_of_torch(tmp_path: Path) -> None:
    settings = training(tmp_path, "matrices = 'adamw'\nmatrix_rate = 0.01\nwarmup = 0\ndrop = 1.0")
    random = torch.Generator().manual_seed(0)
    ours = torch.randn(8, 8, generator=random).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    mine = optimizers.Optimizer({"w": ours})
    rates = optimizers.rates({"w": ours}, ["w"], settings)
    oracle = torch.optim.AdamW([theirs], betas=optimizers.BETAS, eps=optimizers.EPS)
    for step in range(settings.steps):
        gradient = torch.randn(8, 8, generator=random) * 0.01
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        factor, decay = optimizers.factor(step, settings), optimizers.decay(step, settings)
        mine.step(step, rates, factor, decay, settings.clip)
        oracle.param_groups[0]["lr"] = 0.01 * (1 - step / settings.steps)
        oracle.param_groups[0]["weight_decay"] = 0.1 if step < settings.steps / 2 else 0.0
        oracle.step()
    assert ours.grad is None
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_schedules(tmp_path: Path) -> None:
    settings = training(tmp_path, "warmup = 3\ndrop = 0.5\nstage = 0.5\nfloat_share = 0.25")
    rates = [optimizers.factor(step, settings) for step in range(settings.steps)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3 * 11 / 12, 10 / 12])
    assert rates[6] == pytest.approx(0.5 * 0.5) and rates[5] == pytest.approx(7 / 12)
    assert rates[-1] == pytest.approx(0.5 / 12)
    assert [optimizers.is_ternary(step, settings) for step in (0, 2, 3, 11)] == [0, 0, 1, 1]


def test_clipping_shrinks_all_gradients_together() -> None:
    weights = [torch.zeros(3), torch.zeros(4)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    assert optimizers.clip(weights, 0.0) == pytest.approx(7**0.5)
    assert float(weights[0].grad[0]) == 1.0
    optimizers.clip(weights, 1.0)
    assert float(torch.cat([weight.grad for weight in weights]).norm()) == pytest.approx(1.0)
