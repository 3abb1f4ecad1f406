"""Speed: which tests are run, what a figure holds, and the machine's limits."""

import math
import statistics
from pathlib import Path

import pytest

import text_model
from small_model import EXPERTS, MIXTURE_KEYS, USED, mixture, write
from trit.errors import DoesNotFitError, UsageError
from trit.evaluate import _machine, speed
from trit.evaluate._machine import Limits
from trit.evaluate.speed import Speed, SpeedTest, bench, speed_tests
from trit.quantize import quantize


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def integer_model(model: Path) -> Path:
    """The same with eight-bit weights, whose products are int8."""
    from trit.convert import convert

    path = model.with_name("integer.gguf")
    convert(model, path, "q8_0")
    return path


def test_labels_are_those_of_llama_bench() -> None:
    assert SpeedTest(512, 0).label == "pp512"
    assert SpeedTest(0, 128, 4096).label == "tg128 @ d4096"
    assert SpeedTest(512, 128).label == "pp512+tg128"


def test_every_length_at_every_depth() -> None:
    labels = [test.label for test in speed_tests([8, 16], [4], [0, 32])]
    assert labels == ["pp8", "pp16", "tg4", "pp8 @ d32", "pp16 @ d32", "tg4 @ d32"]
    assert [test.label for test in speed_tests([0], [4])] == ["tg4"]
    with pytest.raises(UsageError, match="nothing to measure"):
        speed_tests([0], [0])
    with pytest.raises(UsageError, match="0 or more"):
        speed_tests([-1], [4])


def test_figures_of_a_small_model(model: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = list(
        bench(
            model, speed_tests([16], [3], [0, 8]), [1, 2], 3, False,
            lambda what, done, total: seen.append((what, done, total)),
        )
    )  # fmt: skip
    assert [(f.test.label, f.threads) for f in found] == [
        (label, threads) for threads in (1, 2) for label in ("pp16", "tg3", "pp16 @ d8", "tg3 @ d8")
    ]
    assert seen[:5] == [("pp16", done, 4) for done in range(5)]
    for figure in found:
        assert len(figure.samples_ns) == 3 and min(figure.samples_ns) > 0
        rates = [1e9 * figure.test.tokens / ns for ns in figure.samples_ns]
        assert figure.ts == pytest.approx(statistics.fmean(rates))
        assert figure.ts_spread == pytest.approx(statistics.stdev(rates))
        assert figure.limits is None and figure.share is None


def test_what_is_run_is_what_the_label_says(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every pass: (first position, how many)."""
    passes: list[tuple[int, int]] = []
    forward = speed.Opened.__init__.__globals__["Engine"].forward

    def record(self: object, rows: object, outputs: object = None) -> object:
        passes.append((int(rows.positions[0]), len(rows.tokens)))  # type: ignore[attr-defined]
        return forward(self, rows, outputs)

    monkeypatch.setattr(speed.Opened.__init__.__globals__["Engine"], "forward", record)
    list(bench(model, [SpeedTest(5, 0, 8)], [1], 2, False))
    assert passes == [(0, 8), (8, 5), (8, 5), (8, 5)]  # depth once, warm-up, two samples
    passes.clear()
    list(bench(model, [SpeedTest(0, 3)], [1], 1, False))
    assert passes == [(0, 1), (0, 1), (1, 1), (2, 1)]


def test_keys_of_llama_bench(model: Path) -> None:
    (figure,) = bench(model, [SpeedTest(0, 2)], [1], 1, False)
    answer = figure.to_dict()
    expected = """build_commit build_number cpu_info gpu_info backends model_filename model_type
        model_size model_n_params n_batch n_ubatch n_threads type_k type_v n_gpu_layers n_prompt
        n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts"""
    assert set(expected.split()) <= set(answer)
    assert answer["model_filename"] == str(model) and answer["n_gen"] == 2
    assert answer["avg_ns"] == answer["samples_ns"][0] and answer["stddev_ts"] == 0
    assert answer["model_type"].startswith("llama ") and answer["model_type"].endswith(" F16")


def shares(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Speed]:
    monkeypatch.setattr(speed, "limits", lambda threads, isa: Limits(threads, isa, 1e9, 1e12))
    return list(bench(path, [SpeedTest(32, 0), SpeedTest(0, 8, 16)], [1], 1))


def test_share_of_the_limits(integer_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, decoding = shares(integer_model, monkeypatch)
    layers, width, kv, wide = 2, 256, 128, 512
    weights = layers * (2 * width * width + 2 * kv * width + 3 * wide * width)
    assert prompt.share == pytest.approx(32e9 / prompt.samples_ns[0] * 2 * weights / 1e12, rel=1e-9)
    cache = 2 * layers * 2 * kv * (16 + 4)  # keys and values in float16, half-way through
    moved = decoding.model.bytes + cache  # the head is the embedding: all of it is read
    assert decoding.share == pytest.approx(8e9 / decoding.samples_ns[0] * moved / 1e9, rel=1e-9)


def test_of_a_mixture_the_chosen_experts_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "f32.gguf", mixture(), "f32", MIXTURE_KEYS)
    path = tmp_path / "model.gguf"
    quantize(source, path, "Q8_0")
    prompt, decoding = shares(path, monkeypatch)
    layers, width, kv, inner = 2, 256, 128, 256
    weights = layers * (2 * width * width + 2 * kv * width + USED * 3 * inner * width)
    assert prompt.share == pytest.approx(32e9 / prompt.samples_ns[0] * 2 * weights / 1e12, rel=1e-9)
    cache = 2 * layers * 2 * kv * (16 + 4)
    asleep = layers * (EXPERTS - USED) * 3 * inner * width // 32 * 34
    moved = decoding.model.bytes + cache - asleep
    assert decoding.share == pytest.approx(8e9 / decoding.samples_ns[0] * moved / 1e9, rel=1e-9)


def test_float_weights_have_no_int8_limit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, decoding = shares(model, monkeypatch)
    assert prompt.share is None and decoding.share is not None


def test_bad_requests(model: Path) -> None:
    with pytest.raises(DoesNotFitError, match="129 tokens is needed, the model was made for 128"):
        list(bench(model, [SpeedTest(64, 0, 65)], [1], 1, False))
    with pytest.raises(UsageError, match="-r 0"):
        list(bench(model, [SpeedTest(8, 0)], [1], 0, False))


def test_limits_of_this_machine(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine this runs on is slower than 100 MB/s or 100 Mop/s, or faster than these."""
    monkeypatch.setattr(_machine, "READ_BYTES", 16 << 20)
    got = _machine.limits.__wrapped__(2, isa)
    assert 1e8 < got.read_bytes_per_second < 1e14
    assert 1e8 < got.int8_ops_per_second < 1e15


def test_wider_registers_multiply_faster(isas: list[str]) -> None:
    rates = [_machine._core.int8_rate(1, isa) for isa in isas]
    if len(rates) == 1:
        pytest.skip("one instruction set only")
    assert rates[0] > 3 * rates[-1]


def test_where_it_ran() -> None:
    assert _machine.cpu_name()
    assert _machine.build_commit()


def test_the_commit_is_read_from_git(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    git = tmp_path / "repository" / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text(f"{commit}\n")
    assert _machine._head(git) == commit
    (git / "refs" / "heads" / "main").unlink()
    (git / "packed-refs").write_text(f"# pack-refs\n{commit} refs/heads/main\n")
    assert _machine._head(git) == commit
    linked = git / "worktrees" / "other"
    linked.mkdir(parents=True)
    (linked / "HEAD").write_text("ref: refs/heads/main\n")
    (linked / "commondir").write_text("../..\n")
    (tmp_path / "gitfile").write_text(f"gitdir: {linked}\n")
    assert _machine._head(tmp_path / "gitfile") == commit
    (git / "HEAD").write_text(commit)
    assert _machine._head(git) == commit
    assert _machine._head(tmp_path / "nowhere") == ""


def test_rates_are_numbers(model: Path) -> None:
    (figure,) = bench(model, [SpeedTest(4, 0)], [1], 2, False)
    assert math.isfinite(figure.ts) and math.isfinite(figure.ts_spread)
