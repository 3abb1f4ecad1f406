"""What `trit estimate` reckons beside what runs really take, and beside sums made by hand."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import text_model
import trit
from trit import archs
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, SourceError, TritError, UnsupportedError, UsageError
from trit.estimate import RAM_GIB
from trit.files import checkpoint
from trit.machine.memory import anonymous_memory
from trit.runtime.needs import cache_bytes, needs
from trit.synth import synth
from trit.synth.shapes import PLANNED, SHAPES, Shape, planned

GIB = 1 << 30
LLAMA = replace(
    SHAPES["llama-3.2-1b"], layers=6, width=1024, heads=16, kv_heads=4, ffn=4096, vocab=32000
)
# Shape, type, type of the cache, words of the prompt.
RUNS = [
    (LLAMA, "Q8_0", "f16", 1200),
    (LLAMA, "Q4_K_M", "q8_0", 300),
    (replace(SHAPES["qwen2.5-0.5b"], layers=8, vocab=60000), "Q4_0", "f32", 400),
    (replace(SHAPES["gemma-3-1b"], layers=7, vocab=40000), "Q5_K_M", "f16", 700),
    (replace(SHAPES["llama-3-8b"], layers=2, vocab=4000), "IQ4_XS", "f16", 150),
    (replace(SHAPES["bitnet-2b"], layers=4, vocab=8000), "TQ2_0", "f16", 200),
]


def actual(path: Path, words: int, cache_type: str = "f16") -> tuple[int, int]:
    """Positions that a real `trit run` has used, and the bytes it takes then."""
    text = " ".join(random.Random(0).choice("abcde") for _ in range(words))
    arguments = ["-p", text, "-n", "4", "-c", "4096", "--temp", "0", "--json", "-t", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "trit", "run", str(path), *arguments, "--cache-type", cache_type],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    predicted, real = answer["predicted_memory_bytes"], answer["actual_memory_bytes"]
    assert predicted == pytest.approx(real, rel=0.03)
    return answer["prompt_tokens"] + answer["tokens"], real


needs_linux = pytest.mark.skipif(anonymous_memory() is None, reason="reads Linux's /proc")


@needs_linux
@pytest.mark.parametrize(("shape", "type", "cache", "words"), RUNS, ids=lambda v: str(v)[:20])
def test_within_three_per_cent(
    shape: Shape, type: str, cache: str, words: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    synth(shape, path, type)
    ctx, real = actual(path, words, cache)
    found = trit.estimate(path, ctx, cache_type=cache, measure=False)
    assert found.chosen.type == type and found.chosen.needs.total == pytest.approx(real, rel=0.03)


@needs_linux
@pytest.mark.parametrize(("name", "words"), [("smollm2-135m-instruct", 500), ("gemma-3-270m", 40)])
def test_models_of_the_zoo(
    name: str, words: int, zoo_model: Callable[[str], Path], tmp_path: Path
) -> None:
    path = zoo_model(name)
    ctx, real = actual(path, words)
    found = trit.estimate(path, ctx, measure=False)
    assert found.chosen.needs.total == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize("cache_type", ["f16", "q8_0", "f32"])
@pytest.mark.parametrize("window", [None, 96])
def test_cache_to_the_byte(tmp_path: Path, cache_type: str, window: int | None) -> None:
    """Passes that begin anywhere within a page; layers with a window and without."""
    path = text_model.write(tmp_path / "model.gguf")
    with checkpoint.open(path) as file:
        plan = archs.plan(file)
        first, *rest = plan.layers
        first = replace(first, mixer=replace(first.mixer, window=window))
        plan = replace(plan, layers=(first, *rest))
        engine = Engine(plan, file.tensors, 1, ctx=1000, batch=64, cache_type=cache_type)
        engine.forward(Rows.of([5]))
        for start in range(1, 1000, 64):
            engine.forward(Rows.of([5] * min(64, 1000 - start), start))
    assert engine.cache_bytes() == cache_bytes(plan, 1000, cache_type, 64)


def test_no_pass_has_more_rows_than_positions(tmp_path: Path) -> None:
    with checkpoint.open(text_model.write(tmp_path / "model.gguf")) as file:
        plan = archs.plan(file)
    for sequences in (1, 4):
        most = needs(plan, 0, 100, batch=100 * sequences, sequences=sequences)
        assert needs(plan, 0, 100, batch=1_000_000, sequences=sequences) == most
        assert needs(plan, 0, 100, batch=99 * sequences, sequences=sequences).total < most.total


def test_a_70b_by_hand() -> None:
    """At 3.5 bits it does not fit a machine of 32 GiB with its context; what would is said."""
    found = trit.estimate("70B", 8192, bpw=3.5, ram="32GiB", measure=False)
    taken = found.chosen.needs
    assert found.parameters == 70_553_706_496 and found.note == "the shape of llama-3.1-70b"
    # 80 layers of keys and values of 8 heads of 128, two bytes each.
    assert taken.cache == 80 * 2 * 8 * 128 * 2 * 8192
    assert taken.weights == pytest.approx(70.55e9 * 3.5 / 8, rel=1e-4)
    assert found.machine.memory == 30 * GIB and not found.chosen.fits
    assert 3000 < found.chosen.largest_ctx < 4096
    said = " ".join(found.advice)
    assert "IQ3_XS fits" in said and "48 GiB" in said and f"{found.chosen.largest_ctx:,}" in said
    fitting = next(each for each in found.mixes if each.type == "IQ3_XS")
    assert fitting.fits and fitting.needs.total <= 30 * GIB


def test_a_400b_at_158_is_79_gb() -> None:
    found = trit.estimate("400B", ram="64GiB", measure=False)
    row = found.canyon[-1]
    assert row.bits == pytest.approx(1.585, abs=1e-3)
    assert row.needs.weights == pytest.approx(79.2e9, rel=0.01)
    assert row.contexts == (0,) * 6 and not any(each.fits for each in found.mixes)


def test_canyon_by_hand() -> None:
    """8B: 8,030,261,248 weights; a position of its cache has 32 · 2 · 8 · 128 · 2 bytes."""
    found = trit.estimate("8B", 8192, measure=False, ram="16GiB")
    assert found.parameters == 8_030_261_248
    bits = [row.bits for row in found.canyon]
    assert bits[:8] == [32, 16, 8, 6, 5, 4, 3, 2] and RAM_GIB == (8, 12, 16, 24, 32, 64)
    for row in found.canyon:
        assert row.needs.weights == round(found.parameters * row.bits / 8)
        assert row.needs.cache == 8192 * 131072
        beside = row.needs.weights + row.needs.scratch + row.needs.program
        for gib, most in zip(RAM_GIB, row.contexts, strict=True):
            room = (gib << 30) - min(2 << 30, (gib << 30) // 8) - beside
            # Scratch grows a little with the context, so by hand it is known to a few pages.
            by_hand = max(0, min(8192, room // 131072 // 64 * 64))
            assert most == pytest.approx(by_hand, abs=256)
    fits = {row.bits: [most == 8192 for most in row.contexts] for row in found.canyon}
    assert fits[16.0] == [False, False, False, True, True, True]
    assert fits[4.0] == [True] * 6 and fits[32.0] == [False] * 4 + [False, True]


def test_mixes_are_the_files_that_quantize_writes(tmp_path: Path) -> None:
    """To the byte, but for what the recipe adds to the header."""
    path = text_model.write(tmp_path / "model.gguf")
    found = trit.estimate(path, measure=False)
    for name in ("Q8_0", "Q4_K_M", "Q2_K"):
        done = trit.quantize(path, tmp_path / f"{name}.gguf", name)
        reckoned = next(each for each in found.mixes if each.type == name)
        assert reckoned.needs.weights == done.tensor_bytes
        assert reckoned.file_bytes is not None
        assert reckoned.file_bytes == pytest.approx(done.bytes, abs=1024)
        again = trit.estimate(done.path, measure=False)
        assert again.chosen.type == name
        assert again.chosen.needs.weights == reckoned.needs.weights


@pytest.mark.parametrize("name", PLANNED)
def test_largest_context_is_the_largest(name: str) -> None:
    """One page more does not fit, and as many do."""
    whole = trit.estimate(name, measure=False, ram="4TB")
    memory = whole.chosen.needs.total + 300_000_000
    total = memory + (2 << 30)
    if total < 16 << 30:
        total = -(-memory * 8 // 7)
    found = trit.estimate(name, measure=False, ram=total)
    most = found.chosen.largest_ctx
    assert found.chosen.fits and most >= found.asked.ctx
    at = trit.estimate(name, most, measure=False, ram=total)
    assert at.chosen.fits
    if most < found.context_length:
        beyond = trit.estimate(name, most + 64, measure=False, ram=total)
        assert not beyond.chosen.fits and beyond.advice


def test_speed_is_bandwidth_over_bytes() -> None:
    """On a named device: 80% of what is published, 80% of that in decoding."""
    found = trit.estimate("8B", 2, device="n100-16gb", type="Q8_0")
    tensors = planned("8B")
    assert tensors is not None
    read = (found.parameters - tensors.vocab * tensors.width) * 8.5 / 8
    assert found.chosen.tokens_per_second == pytest.approx(0.64 * 25.6e9 / read, rel=1e-3)
    assert "80% of 25.6 GB/s" in found.machine.basis


@pytest.mark.parametrize("size", ["0.5B", "3B", "14B", "32B", "123B", "671B", "1T"])
def test_sizes_become_shapes(size: str) -> None:
    shape = planned(size)
    assert shape is not None
    wanted = float(size[:-1]) * (1e12 if size.endswith("T") else 1e9)
    assert shape.weights == pytest.approx(wanted, rel=0.01)
    shape.check()


CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 40960,
}  # fmt: skip


def test_config_alone(tmp_path: Path) -> None:
    """Qwen3-0.6B has 596,049,920 weights, norms and tied head counted once."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    found = trit.estimate(path, measure=False)
    assert found.parameters == 596_049_920 and found.context_length == 40960
    path.write_text(json.dumps(CONFIG | {"architectures": ["Qwen3MoeForCausalLM"]}))
    with pytest.raises(UnsupportedError, match=r"config\.json alone"):
        trit.estimate(path, measure=False)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": "7Q"}, UsageError, "no shape"),
        ({"model": "1M"}, UsageError, "500M to 10T"),
        ({"model": "8B", "ctx": 10**6}, DoesNotFitError, "made for 8192"),
        ({"model": "8B", "ctx": 0}, UsageError, "1 or more"),
        ({"model": "8B", "type": "Q4_K_M", "bpw": 3.0}, UsageError, "one of them"),
        ({"model": "8B", "bpw": float("nan")}, UsageError, "--bpw nan"),
        ({"model": "8B", "type": "Q9"}, UsageError, "Q9"),
        ({"model": "8B", "ram": "lots"}, UsageError, "--ram lots"),
        ({"model": "8B", "device": "toaster"}, UsageError, "raspberry-pi-5-8gb"),
        ({"model": "8B", "device": "n100-16gb", "ram": "8GB"}, UsageError, "one machine"),
        ({"model": "8B", "cache_type": "q2"}, UsageError, "--cache-type q2"),
    ],
)
def test_bad_requests(arguments: dict[str, object], error: type[TritError], says: str) -> None:
    with pytest.raises(error, match=says):
        trit.estimate(**{"measure": False, **arguments})  # type: ignore[arg-type]


def test_a_zoo_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SourceError, match=r"98,362,432 bytes.*trit pull smollm2"):
        trit.estimate("smollm2-135m-instruct")
