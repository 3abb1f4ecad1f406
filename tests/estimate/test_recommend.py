"""What is recommended fits, and nothing beats it on both quality and speed."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import text_model
import trit
from trit import recipe
from trit.errors import UsageError
from trit.estimate import Option
from trit.evaluate import card
from trit.evaluate._estimate import Estimate
from trit.files import gguf
from trit.job import carding
from trit.quantize import prepare_quantize
from trit.recommend import EQUAL, GOOD, HEADROOM, MIXES, READABLE, Candidate, beats, pick
from trit.recommend._curve import MOST, Curve, Point, curve_for, curves
from trit.runtime.needs import Needs

GIB = 1 << 30
MACHINES = [None, "raspberry-pi-5-8gb", "n100-16gb", "steam-deck", "laptop-32gb", "iphone-8gb"]


def sound(found: trit.Recommendation) -> Candidate:
    """The choice, once it is sure that it fits and is not beaten."""
    assert found.chosen is not None
    fitting = [each for each in found.candidates if each.fits]
    for each in fitting:
        assert each.option.needs.total <= (1 - HEADROOM) * found.machine.memory
        assert not (
            each.kld < found.chosen.kld
            and (each.option.tokens_per_second or 0) > (found.chosen.option.tokens_per_second or 0)
        )
    assert found.chosen in fitting and found.chosen.beaten_by is None
    return found.chosen


@pytest.mark.parametrize("device", MACHINES)
@pytest.mark.parametrize("model", ["1B", "3B", "8B", "llama-3-8b"])
def test_fits_and_is_not_beaten(model: str, device: str | None) -> None:
    found = trit.recommend(model, 2048, device=device)
    chosen = sound(found)
    assert [each.type for each in found.candidates].count("Q4_K_M") == 1
    assert {each.type for each in found.candidates} == set(MIXES)
    assert found.words[0] == f"Take {chosen.type}: trit quantize SRC OUT.gguf {chosen.type}"
    assert all(each.measured is (each.option.bits >= 16) for each in found.candidates)


def test_what_people_would_take() -> None:
    """8B: six bits where the memory is quick; four and no fewer where it is slow; nothing of 70B
    at all on a small machine."""
    assert sound(trit.recommend("8B", device="steam-deck")).type == "Q6_K"
    slow = sound(trit.recommend("8B", device="n100-16gb"))
    assert slow.kld < GOOD and 4 < slow.option.bits < 5
    tight = sound(trit.recommend("8B", device="iphone-8gb"))
    assert tight.option.needs.total < 4 * GIB
    none = trit.recommend("70B", device="laptop-16gb")
    assert none.chosen is None and none.words[0].startswith("Nothing of 70B fits")


def candidate(bits: float, kld: float, speed: float | None, fits: bool = True) -> Candidate:
    option = Option("X", bits, None, Needs(round(bits * 1e9), 0, 0, 0), fits, 4096, speed)
    return Candidate(f"{bits}", "X", None, option, kld, "curve", False, fits)


def test_the_rule_is_never_beaten() -> None:
    """On 2,000 random sets, with ties and without a known speed."""
    draw = random.Random(1)
    for _ in range(2000):
        known = draw.random() < 0.8
        several = [
            candidate(
                draw.uniform(2, 16),
                round(10 ** draw.uniform(-4, 0.5), draw.choice([2, 6])),
                draw.choice([draw.uniform(1, 30), 10.0]) if known else None,
                draw.random() < 0.7,
            )
            for _ in range(draw.randint(1, 9))
        ]
        chosen = pick(several)
        fitting = [each for each in several if each.fits]
        assert (chosen is None) == (not fitting)
        if chosen is not None:
            assert chosen in fitting and not any(beats(each, chosen) for each in fitting)


def test_the_rule_by_steps() -> None:
    best, good, quick = candidate(8, 0.001, 8.0), candidate(6, 0.004, 9.0), candidate(4, 0.05, 14.0)
    poor = candidate(2, 0.9, 25.0)
    assert EQUAL > 0.004 and pick([best, good, quick, poor]) is good  # equals: the faster
    slower = [replace_speed(each, 0.5) for each in (best, good, quick, poor)]
    assert READABLE <= 7 and pick(slower) is slower[2]  # 4.5 is too slow, 7 will do
    slowest = [replace_speed(each, 0.1) for each in (best, good, quick, poor)]
    assert pick(slowest) is slowest[2]  # none is quick: the fastest good one
    assert pick([poor, candidate(1.5, 2.0, 40.0)]) is poor  # none is good: what loses least
    assert pick([candidate(4, 0.05, 14.0, fits=False)]) is None


def replace_speed(one: Candidate, factor: float) -> Candidate:
    speed = one.option.tokens_per_second
    assert speed is not None
    return replace(one, option=replace(one.option, tokens_per_second=speed * factor))


def test_cards_go_before_curves(tmp_path: Path) -> None:
    """Of files, the measured loss counts, whatever the type promises."""
    source = text_model.write(tmp_path / "f16.gguf")
    paths = []
    for name, kld in (("Q8_0", 0.2), ("Q4_K_M", 0.01)):
        out = tmp_path / f"{name}.gguf"
        with prepare_quantize(source, out, name, recipe.overrides()) as job:
            carding.reserve(job)
            job.run()
        give_card(out, kld)
        paths.append(out)
    found = trit.recommend(paths, 64, measure=False)
    chosen = sound(found)
    assert (chosen.type, chosen.kld, chosen.measured) == ("Q4_K_M", 0.01, True)
    assert found.words[0] == f"Take {paths[1]}: trit run {paths[1]}"
    assert "measured" in found.words[2]


def test_a_file_of_the_mix_already_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pick.__globals__, "EQUAL", 0.0)  # F16 and Q8_0 are not alike
    for kind, how in (("f16", "trit run {0}"), ("f32", "trit quantize {0} OUT.gguf F16")):
        path = text_model.write(tmp_path / f"{kind}.gguf", matrices=kind)
        found = trit.recommend(path, 64, measure=False)
        assert sound(found).type == "F16" and {each.type for each in found.candidates} == set(MIXES)
        label = path if kind == "f16" else "F16"
        assert found.words[0] == f"Take {label}: {how.format(path)}"


def give_card(path: Path, kld: float) -> None:
    with gguf.open(path) as file:
        names = list(file.tensors)
        text = str(file.metadata["trit.card.text.sha256"])
    one = Estimate(1.0, 0.1)
    made = card.Card(
        text, 64, 100, Estimate(kld, kld / 10), one, one, one, dict.fromkeys(names, 0.1)
    )
    card.write(path, made)


def test_quants_of_two_models_are_refused(tmp_path: Path) -> None:
    one = text_model.write(tmp_path / "one.gguf")
    with pytest.raises(UsageError, match="each must be a file"):
        trit.recommend([one, "8B"], measure=False)
    with pytest.raises(UsageError, match="no model"):
        trit.recommend([], measure=False)


def test_curves_fall() -> None:
    """More bits lose less, between the points and beyond, down to the floor; a point is what it was
    measured as."""
    for curve in curves():
        for point in curve.points:
            assert curve.kld(point.type, point.bits) == point.kld
        losses = [curve.kld("none", bits / 10) for bits in range(20, 100)]
        assert all(a > b or b == curve.floor or a == MOST for a, b in pairwise(losses))
        assert curve.kld("F16", 16.0) == 0.0
    two = Curve("m", "a", 10**9, "", 1e-5, (Point("A", 3.0, 0.1), Point("B", 5.0, 0.001)))
    assert two.kld("x", 4.0) == pytest.approx(0.01) and two.kld("x", 6.0) == pytest.approx(1e-4)
    assert math.isclose(two.kld("A", 3.3), 0.1)


def test_no_curve_goes_beyond_a_guess_at_random() -> None:
    for curve in curves():
        losses = [curve.kld("none", bits / 4) for bits in range(4, 64)]
        assert all(curve.floor <= b <= a < 12 for a, b in pairwise(losses))


def test_a_ternary_model_is_judged_by_no_curve() -> None:
    found = trit.recommend("trit-stories", measure=False)
    assert found.chosen is not None and found.chosen.basis == "trained so"
    assert "it is the model itself" in found.words[2]


def test_the_nearest_curve() -> None:
    coder = curve_for("llama", 70 * 10**9)
    assert coder.model == "Qwen2.5-Coder-1.5B" and curve_for("qwen2", 10**9) is coder
    assert curve_for("llama", 36 * 10**7).model == "SmolLM2-135M-Instruct"
