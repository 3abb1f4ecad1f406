"""The reference executor against transformers, on tiny random models of every architecture.

Each goes the whole way: saved as an HF folder, opened as a virtual GGUF, planned, run. The prompts
are longer than the windows and than the original contexts of the rope scalings. The bound is 1e-3
of the largest logit; both sides round in float32, so what is seen is about 1e-6.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference needs torch (dev extra)")
pytest.importorskip("transformers", reason="the oracle is transformers (dev extra)")
sys.path.insert(0, str(Path(__file__).parent / "archs"))

import torch
from tiny import LINEAR, LLAMA3, YARN, Rope, Variant, longrope, tiny_model

from trit import archs
from trit.files import checkpoint, gguf
from trit.plan import Plan
from trit.reference import Reference

torch.set_num_threads(1)  # models this small gain nothing from more

TOKENS = 80
BOUND = 1e-3
FULL, SLIDES = "full_attention", "sliding_attention"

GEMMA_ROPE: Rope = {
    FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    SLIDES: {"rope_type": "default", "rope_theta": 1e4},
}
PARTIAL: Rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
YARN_SET: Rope = YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.5}

CASES = [
    ("llama", Variant()),
    ("llama", Variant(tied=True, biases=True, head_dim=24)),
    ("llama", Variant(kv_heads=4, dtype="bfloat16")),
    ("llama", Variant(rope=LINEAR)),
    ("llama", Variant(rope=LLAMA3)),
    ("llama", Variant(rope=YARN)),
    ("llama", Variant(rope=YARN_SET)),
    ("mistral", Variant(head_dim=32)),
    ("mistral", Variant(window=16)),
    ("qwen2", Variant()),
    ("qwen2", Variant(tied=True, window=16)),
    ("qwen2", Variant(rope=YARN)),
    ("qwen3", Variant()),
    ("qwen3", Variant(tied=True, biases=True, rope=YARN, dtype="float16")),
    ("gemma2", Variant()),
    ("gemma2", Variant(attention_scalar=24, soft_caps=(2.0, 3.0))),
    ("gemma2", Variant(soft_caps=(None, None), tied=False)),
    ("gemma3", Variant(layers=7)),
    ("gemma3", Variant(layer_types=(SLIDES, FULL, SLIDES), soft_caps=(None, 3.0))),
    ("gemma3", Variant(layers=7, rope=GEMMA_ROPE, dtype="bfloat16")),
    ("gemma3_vision", Variant(layers=7)),
    ("phi3", Variant()),
    ("phi3", Variant(window=16, tied=True)),
    ("phi3", Variant(rope=PARTIAL, heads=2)),
    ("phi3", Variant(rope=longrope(pairs=8, original=64))),
    ("phi3", Variant(rope=longrope(pairs=8, original=128))),
    ("mixtral", Variant()),
    ("mixtral", Variant(window=16, fused=True)),
    ("qwen2moe", Variant()),
    ("qwen2moe", Variant(renormalize=True, window=16, fused=True)),
    ("qwen3moe", Variant()),
    ("qwen3moe", Variant(renormalize=False, tied=True, biases=True, window=16, fused=True)),
    ("qwen3moe", Variant(experts=1, experts_used=1, dtype="bfloat16")),
]


def label(value: object) -> str:
    """A short name of a case: what differs from the plain model."""
    if not isinstance(value, Variant):
        return str(value)
    parts = [
        f"{name}={setting.get('rope_type', 'two') if isinstance(setting, dict) else setting}"
        for name, setting in vars(value).items()
        if setting != getattr(Variant(), name)
    ]
    return ",".join(parts) or "plain"


def expected_logits(arch: str, folder: Path, tokens: np.ndarray) -> torch.Tensor:
    """Logits (n, vocab) of transformers in float32."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    maker = AutoModelForImageTextToText if arch == "gemma3_vision" else AutoModelForCausalLM
    model = maker.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)[None]).logits[0]


def random_tokens(vocab: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocab, TOKENS)


@pytest.mark.parametrize(("arch", "variant"), CASES, ids=label)
def test_logits_equal_transformers(arch: str, variant: Variant, tmp_path: Path) -> None:
    folder = tiny_model(arch, tmp_path, variant)
    tokens = random_tokens(variant.vocab)
    expected = expected_logits(arch, folder, tokens)
    with checkpoint.open(folder) as model, torch.no_grad():
        plan = archs.plan(model, context=TOKENS)
        got = Reference(plan, model.tensors).forward(tokens)
    assert got.shape == (TOKENS, variant.vocab)
    assert (got - expected).abs().max() <= BOUND * expected.abs().max()


@pytest.mark.parametrize(
    ("arch", "variant"), [CASES[i] for i in (4, 8, 10, 15, 18, 27, 29, 31)], ids=label
)
def test_the_gguf_written_from_a_folder_gives_the_same_plan_and_logits(
    arch: str, variant: Variant, tmp_path: Path
) -> None:
    folder = tiny_model(arch, tmp_path / "hf", variant)
    tokens = random_tokens(variant.vocab)
    with checkpoint.open(folder) as source:
        gguf.write(tmp_path / "model.gguf", dict(source.values), list(source.tensors.values()))
        with checkpoint.open(tmp_path / "model.gguf") as copy, torch.no_grad():
            plans = [archs.plan(model) for model in (source, copy)]
            assert plans[0] == plans[1]
            assert (source.kind, copy.kind) == ("hf", "gguf")
            runs = [
                Reference(plan, model.tensors).forward(tokens)
                for plan, model in zip(plans, (source, copy), strict=True)
            ]
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("arch", "variant"),
    [CASES[i] for i in (1, 2, 4, 8, 10, 12, 15, 17, 22, 24, 25, 26, 29, 31)],
    ids=label,
)
def test_the_engine_differs_by_its_half_precision_cache_only(
    arch: str, variant: Variant, tmp_path: Path
) -> None:
    pytest.importorskip("trit._core", reason="the core is not built")
    from trit.engine import Engine, Rows

    folder = tiny_model(arch, tmp_path, variant)
    tokens = random_tokens(variant.vocab)
    with checkpoint.open(folder) as model, torch.no_grad():
        plan = archs.plan(model, context=TOKENS)
        expected = Reference(plan, model.tensors, half_cache=True).forward(tokens).numpy()
        engine = Engine(plan, model.tensors)
        got = engine.forward(Rows.of(tokens.tolist()), list(range(TOKENS)))
    assert np.abs(got - expected).max() <= BOUND / 2 * np.abs(expected).max()


def test_float64_agrees_and_gradients_flow(tmp_path: Path) -> None:
    folder = tiny_model("qwen3", tmp_path)
    tokens = random_tokens(320)
    with checkpoint.open(folder) as model:
        plan = archs.plan(model)
        single = Reference(plan, model.tensors)
        double = Reference(plan, model.tensors, dtype="float64")
        weight = single.weight("blk.0.attn_q.weight").requires_grad_()
        logits = single.forward(tokens)
        with torch.no_grad():
            exact = double.forward(tokens)
    assert exact.dtype == torch.float64
    assert (logits.detach() - exact).abs().max() < 1e-4 * exact.abs().max()
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]))
    (gradient,) = torch.autograd.grad(loss, weight)
    assert _slope(single, plan, tokens, weight, gradient) == pytest.approx(1.0, abs=0.05)


def _slope(
    model: Reference, plan: Plan, tokens: np.ndarray, weight: torch.Tensor, gradient: torch.Tensor
) -> float:
    """Measured change of the loss along the gradient, over what the gradient promises."""
    step = 1e-2 / float(gradient.norm())
    losses = []
    with torch.no_grad():
        for sign in (+1, -2):
            weight += sign * step * gradient
            logits = model.forward(tokens).double()
            losses.append(
                torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:])).item()
            )
        weight += step * gradient
    return (losses[0] - losses[1]) / (2 * step * float(gradient.square().sum()))


def test_longrope_says_how_far_its_factors_reach(tmp_path: Path) -> None:
    folder = tiny_model("phi3", tmp_path, Variant(rope=longrope(pairs=8, original=64)))
    with checkpoint.open(folder) as model:
        short, long = archs.plan(model, context=64), archs.plan(model)
    assert (short.context_length, long.context_length) == (64, 256)
    assert short.layers[0].mixer.rope != long.layers[0].mixer.rope


PARAGRAPH = (
    "The Sun is the star at the center of the Solar System. It is a massive, nearly perfect "
    "sphere of hot plasma, heated to incandescence by nuclear fusion reactions in its core. "
    "The Earth moves around the Sun once a year, and the Moon moves around the Earth."
)


def test_a_real_model_finds_english_likely(zoo_model: Callable[[str], Path]) -> None:
    path = zoo_model("smollm2-135m-instruct")
    from trit.runtime.tokenizer import Tokenizer

    tokens = np.array(Tokenizer.from_gguf(path).encode(PARAGRAPH))
    shuffled = np.random.default_rng(0).permutation(tokens)
    with checkpoint.open(path) as model, torch.no_grad():
        reference = Reference(archs.plan(model), model.tensors)
        text, noise = (_perplexity(reference, ids) for ids in (tokens, shuffled))
    assert text < 15
    assert noise > 20 * text


def _perplexity(reference: Reference, tokens: np.ndarray) -> float:
    logits = reference.forward(tokens)[:-1]
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:])).exp())
