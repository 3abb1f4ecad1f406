"""Trainable encodings: values and bytes agree to the bit, gradients go straight through."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trit import formats
from trit.errors import UnsupportedError
from trit.quantizers import gptq, rtn
from trit.quantizers._levels import Levels
from trit.quantizers._trainable import TRAINABLE, Trainable

pytestmark = pytest.mark.unsanitized

NAMES = sorted(TRAINABLE)
MODES = ("offsets", "weights")
Floats = NDArray[np.float32]


def sample(rows: int = 6, cols: int = 512, seed: int = 0) -> Floats:
    """Heavy tails, one row of tiny weights, one that begins with zeros, one of zeros."""
    rng = np.random.default_rng(seed)
    weights = (rng.standard_t(4, (rows, cols)) * 0.03).astype(np.float32)
    weights[0] *= 1e-6
    weights[1] = 0
    weights[1, 64:] = weights[-1, 64:]
    weights[2:3] = 0
    return weights


def made(name: str, mode: str, weights: Floats) -> Trainable:
    return Trainable(weights, name, rtn.quantize(weights, name, threads=1), mode)  # type: ignore[arg-type]


def move(matrix: Trainable, size: float, seed: int = 1) -> None:
    """Parameters at random, up to `size` (weights: that share of their spread)."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in matrix.parameters.items():
            unit = each.std() if name == "weights" else 1.0
            each += (torch.rand(each.shape, generator=random) * 2 - 1) * size * unit
    matrix.confine()


def same_bits(a: Floats, b: Floats) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def decoded(matrix: Trainable) -> Floats:
    return matrix.format.decode(matrix.pack())


@pytest.mark.parametrize("name", [name for name in NAMES if formats.get(name).levels])
def test_the_nearest_level_of_a_table(name: str) -> None:
    levels = Levels.of(formats.get(name), "cpu")
    assert levels.table is not None
    middles = (levels.table[1:] + levels.table[:-1]) / 2
    random = torch.Generator().manual_seed(0)
    steps = torch.cat([
        torch.randn(5000, generator=random) * 60,
        levels.table,
        middles,
        middles.nextafter(torch.tensor(torch.inf)),
        middles.nextafter(torch.tensor(-torch.inf)),
        torch.tensor([torch.inf, -torch.inf, 1e30, -1e30, 0.0]),
    ])  # fmt: skip
    expected = levels.table[torch.bucketize(steps, middles)]
    assert torch.equal(levels.nearest(steps), expected)
    assert levels.nearest(torch.full((2, 3), torch.nan)).shape == (2, 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_the_encoding(name: str, mode: str) -> None:
    weights = sample()
    packed = rtn.quantize(weights, name, threads=1)
    matrix = made(name, mode, weights)
    assert np.array_equal(matrix.pack(), packed)
    assert same_bits(matrix.values().detach().numpy(), formats.get(name).decode(packed))


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_an_encoding_whose_codes_are_not_the_nearest(name: str) -> None:
    rng = np.random.default_rng(3)
    weights = sample()
    inputs = rng.standard_normal((600, 40)) @ rng.standard_normal((40, 512))
    gram = (inputs.T @ inputs + np.eye(512)).astype(np.float32)
    packed = gptq.quantize(weights, name, gram, threads=1)
    assert not np.array_equal(packed, rtn.quantize(weights, name, threads=1))
    assert np.array_equal(Trainable(weights, name, packed).pack(), packed)


@pytest.mark.parametrize("size", [0.01, 0.3, 3.0, 100.0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_bytes_decode_to_the_values(name: str, mode: str, size: float) -> None:
    matrix = made(name, mode, sample())
    before = matrix.pack()
    move(matrix, size)
    values = matrix.values().detach().numpy()
    assert not np.array_equal(matrix.pack(), before)
    assert np.isfinite(values).all()
    assert same_bits(decoded(matrix), values)


@pytest.mark.parametrize("name", NAMES)
def test_scales_beyond_fp16_are_the_largest(name: str) -> None:
    matrix = made(name, "offsets", sample() * np.float32(1e7))
    with torch.no_grad():
        matrix.parameters["d"] += 0.4
    assert np.array_equal(decoded(matrix), matrix.values().detach().numpy())


@pytest.mark.parametrize("name", NAMES)
def test_offsets_choose_between_neighbours(name: str) -> None:
    """Whatever the offsets, a code is one of the two levels around the weight, or stays."""
    weights = sample(rows=2, seed=5)
    matrix = made(name, "offsets", weights)
    format = matrix.format
    assert format.unpack is not None
    before = format.unpack(matrix.pack().reshape(-1, format.block_bytes)).codes.astype(int)
    move_offsets = torch.rand(weights.shape, generator=torch.Generator().manual_seed(2)) - 0.5
    with torch.no_grad():
        matrix.parameters["offsets"] += move_offsets
    after = format.unpack(matrix.pack().reshape(-1, format.block_bytes)).codes.astype(int)
    most = 2 if format.levels else 1  # uneven levels: half of a mean step is more than one here
    assert 0 < np.abs(after - before).max() <= most


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_autograd(name: str, mode: str) -> None:
    """Against the same function written with torch's own operations."""
    matrix = made(name, mode, sample())
    move(matrix, 0.2)
    towards = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(4))

    def gradients(values: Tensor) -> dict[str, Tensor]:
        for each in matrix.parameters.values():
            each.grad = None
        (values * towards).sum().backward()
        return {k: v.grad.clone() for k, v in matrix.parameters.items() if v.grad is not None}

    ours, plain = gradients(matrix.values()), gradients(slow_values(matrix))
    assert set(ours) == set(matrix.parameters) == set(plain)
    for key, expected in plain.items():
        room = 1e-4 * float(expected.abs().max())
        assert float((ours[key] - expected).abs().max()) <= room, key


def slow_values(matrix: Trainable) -> Tensor:
    """s · q + o by autograd, with a rounding whose gradient is 1 within the range."""
    scale, shift = matrix._scale_and_shift()
    levels, parameters = matrix._levels, matrix.parameters
    o = torch.zeros_like(scale) if shift is None else shift
    if "weights" in parameters:
        weights = parameters["weights"].view(matrix._groups)
        steps = (weights - o[:, :, None]) / torch.where(scale == 0, 1.0, scale)[:, :, None]
    else:
        assert matrix._place is not None
        steps = matrix._place + parameters["offsets"].view(matrix._groups) * levels.step
    half = levels.step / 2
    inside = steps.clamp(levels.lowest - half, levels.highest + half)
    q = inside + (levels.nearest(steps) - inside).detach()
    return (q * scale[:, :, None] + o[:, :, None]).view(matrix.shape)


@pytest.mark.parametrize("name", NAMES)
def test_training_comes_nearer_to_its_aim(name: str) -> None:
    """Sign steps on offsets and scales lower an error of outputs that rounding did not see."""
    weights = sample(rows=16, seed=7)
    matrix = made(name, "offsets", weights)
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn((16, 512), generator=random)
    inputs = torch.randn((256, 16), generator=random) @ mixing
    wanted = inputs @ torch.from_numpy(weights).T

    def loss() -> Tensor:
        return (inputs @ matrix.values().T - wanted).square().mean()

    first = best = loss().item()
    for step in range(60):
        loss_now = loss()
        loss_now.backward()
        with torch.no_grad():
            for key, each in matrix.parameters.items():
                rate = 0.02 if key == "offsets" else 1e-3
                assert each.grad is not None
                each -= rate * (1 - step / 60) * each.grad.sign()
                each.grad = None
        matrix.confine()
        best = min(best, loss().item())
    assert best < 0.8 * first


def test_confined_parameters_stay_on_the_levels() -> None:
    matrix = made("q4_k", "offsets", sample())
    with torch.no_grad():
        for each in matrix.parameters.values():
            each += 1000.0
    matrix.confine()
    assert matrix.parameters["offsets"].max().item() == 0.5
    assert matrix.parameters["d"].max().item() == 0.5
    _, _, integers = matrix._numbers()
    assert integers["scales"].min().item() == integers["mins"].min().item() == 63


def test_other_formats_are_refused() -> None:
    weights = np.zeros((1, 256), np.float32)
    with pytest.raises(UnsupportedError, match=r"iq3_s cannot be trained. These can: iq4_nl"):
        Trainable(weights, "iq3_s", rtn.quantize(weights, "iq3_s"))
