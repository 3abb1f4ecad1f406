"""Energy: counters that begin again, idle power, and a model that is arithmetic by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import text_model
from small_model import EMBED, EXPERTS, FEED_FORWARD, LAYERS, MIXTURE_KEYS, USED, mixture, write
from trit.cli import main
from trit.convert import convert
from trit.errors import UnsupportedError, UsageError
from trit.evaluate import energy
from trit.evaluate._opened import Opened
from trit.evaluate._rapl import Meter
from trit.evaluate.energy import energies, modelled
from trit.evaluate.speed import SpeedTest
from trit.quantize import quantize

VOCAB = 258
ATTENTION = EMBED * (EMBED + EMBED // 2 + EMBED // 2 + EMBED)  # products of q, k, v and output
FORWARD = 3 * EMBED * FEED_FORWARD
HEAD = VOCAB * EMBED


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def counter(folder: Path, name: str, microjoules: int, most: int = 10_000_000) -> Path:
    """A RAPL domain as Linux shows it."""
    number = len(list(folder.glob("intel-rapl:*")))
    made = folder / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text(f"{most}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    return made / "energy_uj"


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    files = [
        counter(tmp_path, name, 100)
        for name in ("package-0", "core", "uncore", "dram", "package-1", "psys")
    ]
    (tmp_path / "intel-rapl").mkdir()  # the control type itself
    meter = Meter(tmp_path)
    assert meter.names == ("package-0", "dram", "package-1")
    for number, file in enumerate(files):
        file.write_text(str(100 + 10**number))
    assert meter.advance() == pytest.approx((1 + 1000 + 10_000) / 1e6)
    assert meter.advance() == 0


def test_a_counter_that_begins_again(tmp_path: Path) -> None:
    file = counter(tmp_path, "package-0", 9_000_000, most=10_000_000)
    meter = Meter(tmp_path)
    file.write_text("500000")
    assert meter.advance() == pytest.approx(1.5)
    file.write_text("600000")
    assert meter.advance() == pytest.approx(0.1)


def test_why_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="has no RAPL counters"):
        Meter(tmp_path / "absent")
    counter(tmp_path, "package-0", 1).write_text("no number")
    with pytest.raises(UnsupportedError, match="cannot be read"):
        Meter(tmp_path)

    def refused(path: Path, encoding: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError
        return "package-0" if path.name == "name" else "1"

    monkeypatch.setattr(Path, "read_text", refused)  # root, as in a container, may read anything
    with pytest.raises(UnsupportedError, match="read by root alone"):
        Meter(tmp_path)


class Clock:
    """Time that passes only in `sleep` and in runs: idle at 3 W, running at 11 W."""

    def __init__(self, file: Path, most: int) -> None:
        self.now, self._file, self._most = 1000.0, file, most
        self._microjoules = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.spend(seconds, 3)

    def spend(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self._microjoules += 1e6 * watts * seconds
        self._file.write_text(str(round(self._microjoules) % self._most))


def test_measured_less_idle(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of two seconds at 11 W over an idle 3 W: 16 J for its tokens; counters wrap often."""
    most = 30_000_000
    clock = Clock(counter(tmp_path, "package-0", 0, most), most)
    runs: list[str] = []

    def prepared(opened: Opened, test: SpeedTest) -> Callable[[], int]:
        def run() -> int:
            runs.append(test.label)
            clock.spend(2, 11)
            return 0

        return run

    monkeypatch.setattr(energy, "time", clock)
    monkeypatch.setattr(energy, "prepared", prepared)
    tests = [SpeedTest(8, 0), SpeedTest(0, 4)]
    seen: list[str] = []
    found = list(
        energies(model, tests, [1], 60, powercap=tmp_path,
                 on_progress=lambda what, done, total: seen.append(what))
    )  # fmt: skip
    assert runs == ["pp8"] * 30 + ["tg4"] * 30
    for each, tokens in zip(found, (8, 4), strict=True):
        assert each.measured is not None and each.unmeasured is None
        assert each.measured.idle_watts == pytest.approx(3, rel=1e-6)
        assert each.measured.watts == pytest.approx(11, rel=1e-6)
        assert each.measured.joules == pytest.approx(2 * (11 - 3) / tokens, rel=1e-6)
        assert (each.measured.seconds, each.measured.tokens) == (60, 30 * tokens)
    assert list(dict.fromkeys(seen)) == ["idling", "energy of pp8", "energy of tg4"]


def test_real_runs_are_counted(model: Path, tmp_path: Path) -> None:
    counter(tmp_path, "package-0", 5)
    (found,) = energies(model, [SpeedTest(0, 2)], [1], 0.05, powercap=tmp_path)
    assert found.measured is not None and found.measured.joules == 0
    assert found.measured.tokens >= 2 and found.measured.seconds >= 0.05


def test_modelled_by_hand(model: Path, tmp_path: Path) -> None:
    """Floats: every product is FP16, every byte of the file but some vectors is read."""
    with Opened(model, 128, 1) as opened:
        found = modelled(opened, SpeedTest(0, 10, depth=20))
        seen = 2 * LAYERS * 25 * EMBED  # products with keys and with values at the middle position
        assert found.fp16 == LAYERS * (ATTENTION + FORWARD) + HEAD + seen
        assert found.int8 == found.ternary == 0
        cached = 2 * 2 * LAYERS * 25 * EMBED // 2  # two bytes for keys and values of half the heads
        assert found.bytes == opened.weight_bytes + cached
    assert found.arithmetic == found.arithmetic_adding == pytest.approx(0.5e-12 * found.fp16)
    assert found.memory_ddr == pytest.approx(162.5e-12 * found.bytes)
    assert found.memory_hbm == pytest.approx(32e-12 * found.bytes)


def test_a_prompt_reads_the_weights_once_for_many(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "q8.gguf"
    convert(model, path, "q8_0")
    with Opened(path, 128, 1) as opened:
        prompt = modelled(opened, SpeedTest(100, 0))
        token = modelled(opened, SpeedTest(0, 1))
        both = modelled(opened, SpeedTest(100, 1))
    assert token.int8 == LAYERS * (ATTENTION + FORWARD) + HEAD
    assert prompt.int8 == pytest.approx(LAYERS * (ATTENTION + FORWARD) + HEAD / 100)
    assert prompt.bytes < token.bytes / 10
    assert both.int8 == pytest.approx((100 * prompt.int8 + token.int8) / 101)


def test_ternary_products(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "tq2.gguf"
    quantize(model, path, "TQ2_0", force=True)
    with Opened(path, 128, 1) as opened:
        found = modelled(opened, SpeedTest(0, 1))
        layers = [t for name, t in opened.file.tensors.items() if name.startswith("blk.")]
        ternary = sum(t.rows * t.cols for t in layers if t.format.name == "tq2_0")
    assert found.ternary == ternary > 0
    expected = 1e-12 * (0.077 * (found.int8 + found.ternary) + 0.5 * found.fp16)
    assert found.arithmetic == pytest.approx(expected)
    assert found.arithmetic - found.arithmetic_adding == pytest.approx(0.07e-12 * found.ternary)


def test_only_chosen_experts_count(tmp_path: Path) -> None:
    path = write(tmp_path / "moe.gguf", mixture(), extra=MIXTURE_KEYS)
    with Opened(path, 32, 1) as opened:
        found = modelled(opened, SpeedTest(0, 1))
        head = opened.plan.head.rows * EMBED
    experts = USED * 3 * EMBED * (FEED_FORWARD // 2) + EXPERTS * EMBED
    assert found.fp16 == LAYERS * (ATTENTION + experts) + head


def test_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="--energy-seconds 0"):
        next(energies(model, [SpeedTest(8, 0)], seconds=0))


BENCH = ["-p", "8", "-n", "2", "-t", "1", "-r", "1", "--no-limits", "--energy"]


def test_command_without_counters(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert main(["bench", str(model), *BENCH]) == 0
    said = capsys.readouterr()
    assert "energy is modelled, not measured" in said.err
    tail = said.out[said.out.index("not measured:") :]
    assert "MODELLED, mJ/TOKEN" in tail and "it compares, it does not" in tail
    assert max(map(len, tail.splitlines())) <= 80 and "MEASURED, idle" not in said.out
    assert main(["bench", str(model), *BENCH, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["energy"]["measured"] for row in rows] == [None, None]
    assert all(row["energy"]["modelled"]["memory_ddr"] > 0 for row in rows)


def test_command_with_counters(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter(tmp_path, "package-0", 5)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert main(["bench", str(model), *BENCH, "--energy-seconds", "0.05"]) == 0
    said = capsys.readouterr()
    assert "0.05 seconds of idling, then as long for each of 2 tests" in said.err
    assert (
        "MEASURED, idle subtracted" in said.out and "package-0; no counter for memory" in said.out
    )
