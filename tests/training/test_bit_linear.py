"""The ternary linear and the network against transformers and the reference executor."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trit.archs import bitnet_b158
from trit.reference import Reference
from trit.training import config as configs
from trit.training.shape import hf_config, planned

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
bitnet = pytest.importorskip("trit.training.bitnet")
networks = pytest.importorskip("trit.training.network")

SHAPE = configs.Model(width=32, layers=2, heads=4, kv_heads=2, ffn=64, context=16)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def oracle() -> Iterator[Any]:
    """transformers' BitNet, which asks for a compiler at each call unless told otherwise."""
    module = pytest.importorskip(
        "transformers.integrations.bitnet", reason="the oracle (dev extra)"
    )
    with torch.compiler.set_stance("force_eager"):
        yield module


@pytest.mark.parametrize("cols", [32, 96, 512])
def test_a_linear_and_its_gradients_are_those_of_transformers(oracle: Any, cols: int) -> None:
    x, weight = random(3, 5, cols), random(24, cols, seed=1) / 7
    x[0, 0] = 0  # a token of nothing
    x[1, 1] *= 1e-7
    theirs = oracle.AutoBitLinear(cols, 24, bias=False, online_quant=True)
    theirs.weight = torch.nn.Parameter(weight.clone())
    given = [each.clone().requires_grad_() for each in (x, weight)]
    ours = bitnet.bit_linear(*given)
    other = x.clone().requires_grad_()
    expected = theirs(other)
    # Terms of one size, summed in another order: eps times what is summed, per output.
    bound = torch.finfo(torch.float32).eps * cols * float(x.abs().max() * weight.abs().mean())
    assert (ours - expected).abs().max() <= bound
    weigh = random(3, 5, 24, seed=2)
    (ours * weigh).sum().backward()
    (expected * weigh).sum().backward()
    assert torch.allclose(given[0].grad, other.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(given[1].grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)


def test_sums_are_exact() -> None:
    x, weight = random(4, 512), random(64, 512, seed=1)
    (codes, steps), (digits, unit) = bitnet.codes_of(x), bitnet.ternary(weight)
    sums = codes.long() @ digits.long().T
    assert torch.equal(bitnet.bit_linear(x, weight), sums.float() * (steps * unit))


def test_digits() -> None:
    digits, unit = bitnet.ternary(torch.tensor([[0.0, 1.0, -3.0, 0.4]]))
    assert digits.tolist() == [[0.0, 1.0, -1.0, 0.0]] and float(unit) == pytest.approx(1.1)
    assert bitnet.ternary(torch.zeros(2, 4))[0].abs().max() == 0


def network(tied: bool = True, **settings: Any) -> Any:
    """A random network: every norm off 1, no matrix zero."""
    model = configs.Model(**vars(SHAPE) | {"tied": tied})
    plan, shapes = planned(hf_config(model, 40, {}, "tiny"), model.context)
    weights = {
        name: 1 + random(*shape, seed=i) / 5 if len(shape) == 1 else random(*shape, seed=i) / 5
        for i, (name, shape) in enumerate(shapes.items())
    }
    return networks.Network(plan, weights, **settings)


@pytest.mark.parametrize("tied", [True, False])
def test_floats_are_those_of_the_reference(tied: bool) -> None:
    made = network(tied)
    tensors = {
        name: SimpleNamespace(decode=lambda each=each: each.numpy())
        for name, each in made.weights.items()
    }
    assert ("output.weight" in tensors) != tied
    tokens = np.random.default_rng(0).integers(0, 40, (2, 16))
    oracle = Reference(made.plan, tensors)
    found = made.logits(torch.from_numpy(tokens))
    for row, expected in zip(found, map(oracle.forward, tokens), strict=True):
        # Some hundreds of roundings in a row, none of which grows much.
        assert torch.allclose(row, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_ternary_model_is_that_of_transformers(oracle: Any) -> None:
    """Its own network, every linear but the head replaced by its own ternary one."""
    transformers = pytest.importorskip("transformers", reason="the oracle (dev extra)")
    made = network()
    made.ternary = True
    hf = hf_config(SHAPE, 40, {}, "tiny")
    settings = {key: value for key, value in hf.items() if key[0] != "_"}
    model = transformers.BitNetForCausalLM(transformers.BitNetConfig(**settings)).float()
    state = {
        name: made.weights[str(bitnet_b158.rename(name))] for name in bitnet_b158.hf_shapes(hf)
    }
    for name, module in list(model.model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            linear = oracle.AutoBitLinear(
                module.in_features, module.out_features, bias=False, online_quant=True
            )
            model.model.set_submodule(name, linear)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (2, 16)))
    with torch.no_grad():
        ours, theirs = made.logits(tokens), model.eval()(tokens).logits
    # An activation that falls between two codes may go either way: a step of 1/127 of its token.
    ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    assert float((ours.exp() * (ours - theirs)).sum(-1).max()) < 1e-3
    assert torch.median((ours - theirs).abs()) < 1e-3


def test_keeping_less_for_the_backward_pass_changes_nothing() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (2, 17)))
    grads = []
    for checkpointing in (False, True):
        made = network(checkpointing=checkpointing)
        made.ternary = True
        for weight in made.weights.values():
            weight.requires_grad_()
        made.loss(rows).backward()
        grads.append([weight.grad for weight in made.weights.values()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_bfloat16_is_near() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (2, 17)))
    losses = []
    for compute in (torch.float32, torch.bfloat16):
        made = network(compute=compute)
        made.ternary = True
        losses.append(float(made.loss(rows)))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_weights_to_begin_with() -> None:
    plan, shapes = planned(hf_config(SHAPE, 40, {}, "tiny"), 16)
    one, same, other = (networks.initial(plan, shapes, seed) for seed in (0, 0, 1))
    name = "blk.0.attn_q.weight"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])
    assert float(one[name].std()) == pytest.approx(32**-0.5, rel=0.1)
    assert not one["blk.1.ffn_down.weight"].any() and (one["output_norm.weight"] == 1).all()
    assert len(networks.matrices(plan)) == 14
