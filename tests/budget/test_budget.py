"""A budget for a small model: kept to the byte, measured once, and nothing lost to bad input."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_model
import text_model
import trit
from trit import archs, budget, recipe
from trit.budget import _sensitivity
from trit.budget._allocation import THREADS
from trit.budget._mixtures import LOSSES, corrected, mixtures
from trit.budget._probe import HEAD, Prober, places
from trit.budget._sensitivity import SUFFIX
from trit.engine import Engine, Rows
from trit.errors import InvalidFileError, TritError, UsageError
from trit.files import checkpoint, gguf
from trit.files.source import open_source
from trit.runtime.needs import cache_bytes, needs

TEXT = text_model.TEXT * 12


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return text_model.write(tmp_path / "model.gguf")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def measured(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and beside it what was measured on the text."""
    folder = tmp_path_factory.mktemp("measured")
    model = text_model.write(folder / "model.gguf")
    prepared(model, folder / "out.gguf", text, bpw=8.0).job.source.close()
    return model


@pytest.fixture
def known(measured: Path, tmp_path: Path) -> Path:
    """A model that is only read; what was measured stands beside outputs in `tmp_path`."""
    for path in measured.parent.glob("model.*.*"):
        shutil.copy(path, tmp_path)
    return measured


def prepared(model: Path, out: Path | None, text: Path, **asked: Any) -> budget.Prepared:
    wishes = asked.pop("wishes", recipe.overrides())
    said = asked.pop("said", None)
    wanted = budget.target(**asked)
    assert wanted is not None
    return budget.prepare(model, out, wanted, wishes, calibration=text, threads=1, said=said)


def possible(model: Path, out: Path, text: Path) -> tuple[int, int]:
    job, allocation, _ = prepared(model, out, text, bpw=8.0)
    with job:
        return allocation.smallest, allocation.largest


def test_never_over_and_near(known: Path, text: Path, tmp_path: Path) -> None:
    low, high = possible(known, tmp_path / "out.gguf", text)
    for size in np.linspace(low, high, 23).astype(int).tolist():
        job, allocation, _ = prepared(known, tmp_path / "out.gguf", text, fit=size)
        with job:
            planned = job.result()
        assert planned.bytes <= size
        if 1.05 * low < size < 0.8 * high:  # the steps of a few small matrices are coarse
            assert planned.bytes > 0.98 * size
        assert allocation.optimal


def test_the_smallest_that_is_named_can_be_asked_for(
    known: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    for asked in (1, 10_000, 200_000):  # the header names it, in one digit or in six
        with pytest.raises(UsageError, match="smallest file has") as refused:
            prepared(known, out, text, fit=asked)
        named = int(re.search(r"has ([\d,]+) bytes", str(refused.value))[1].replace(",", ""))  # type: ignore[index]
        job, _, _ = prepared(known, out, text, fit=named)
        with job:
            assert job.result().bytes <= named


def test_file_is_as_planned_and_says_how_it_was_made(
    known: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    low, high = possible(known, out, text)
    size = (2 * low + high) // 3
    result = trit.quantize(known, out, fit=size, calibration=text, threads=1)
    assert out.stat().st_size == result.bytes <= size
    assert result.weighted > 0
    with gguf.open(out) as file:
        said = json.loads(str(file.metadata["trit.recipe"]))
        types = {name: tensor.format.name for name, tensor in file.tensors.items()}
        most = file.metadata["general.file_type"]
    assert said["budget"] == {"fit": size}
    written = {name: format for format, names in said["types"].items() for name in names}
    assert written.items() <= types.items()
    assert {types[name] for name in types if name not in written} == {"f32"}
    assert most in range(1, 33)


def test_bits_per_weight_are_those_of_the_result(known: Path, text: Path, tmp_path: Path) -> None:
    result = trit.quantize(
        known, tmp_path / "out.gguf", bpw=4.5, calibration=text, threads=1, dry_run=True
    )
    assert 4.4 < result.bits_per_weight <= 4.5
    assert not (tmp_path / "out.gguf").exists()


def test_bits_of_the_frontier_can_be_asked_for(known: Path, text: Path, tmp_path: Path) -> None:
    """They count tensors alone, as those of the result do."""
    job, allocation, _ = prepared(known, tmp_path / "out.gguf", text, bpw=6.0)
    job.source.close()
    for point in allocation.frontier:
        bits = point.bits_per_weight + 0.004  # what pads 15 tensors
        job, again, _ = prepared(known, tmp_path / "out.gguf", text, bpw=bits)
        with job:
            assert job.result().bits_per_weight == pytest.approx(point.bits_per_weight, abs=0.005)
        assert again.kld == pytest.approx(point.kld)


def test_the_file_itself_is_no_point_beside_it(known: Path, text: Path, tmp_path: Path) -> None:
    job, allocation, _ = prepared(known, tmp_path / "out.gguf", text, fit="1GB")
    with job:
        own = job.result().bytes
    sizes = [point.bytes for point in allocation.frontier]
    assert len(sizes) == 4 and max(sizes) < own  # the largest there is: nothing lies above


def test_smallest_below_a_divergence(known: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with (first := prepared(known, out, text, bpw=4.5)).job:
        kld = first.allocation.kld
        size = first.job.result().tensor_bytes
    with (second := prepared(known, out, text, max_kld=kld)).job:
        assert second.allocation.kld <= kld
        assert second.job.result().tensor_bytes <= size  # keys say what was asked: other room
    with (third := prepared(known, out, text, fit=second.job.result().bytes - 33)).job:
        assert third.allocation.kld > kld  # nothing smaller would do


def test_measured_once_for_every_budget(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    prepared(model, tmp_path / "a.gguf", text, bpw=4.5, said=said.append).job.source.close()
    assert "measured" in said[0]

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(_sensitivity, "Prober", refuse)
    monkeypatch.setattr(_sensitivity, "errors", refuse)
    job, _, kept = prepared(model, tmp_path / "b.gguf", text, bpw=3.5, said=said.append)
    job.source.close()
    assert len(said) == 1
    assert kept == tmp_path / f"model{SUFFIX}"


def test_goes_on_where_it_was_stopped(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepared(model, tmp_path / "out.gguf", text, bpw=4.0)
    whole.job.source.close()
    expected = json.loads(whole.kept.read_text())
    whole.kept.unlink()
    probe, probed = Prober._probe, list[str]()

    def until_second_layer(self: Prober, index: int, names: list[str], *rest: Any) -> Any:
        if index == 1:
            raise KeyboardInterrupt
        probed.extend(names)
        return probe(self, index, names, *rest)

    monkeypatch.setattr(Prober, "_probe", until_second_layer)
    with pytest.raises(KeyboardInterrupt):
        prepared(model, tmp_path / "out.gguf", text, bpw=4.0)
    first = set(probed)
    probed.clear()

    def all_of_it(self: Prober, index: int, names: list[str], *rest: Any) -> Any:
        probed.extend(names)
        return probe(self, index, names, *rest)

    monkeypatch.setattr(Prober, "_probe", all_of_it)
    resumed = prepared(model, tmp_path / "out.gguf", text, bpw=4.0)
    resumed.job.source.close()
    assert first and probed and not first & set(probed)
    found = json.loads(resumed.kept.read_text())
    assert found["tensors"] == expected["tensors"]
    assert resumed.allocation.formats == whole.allocation.formats


def test_another_text_or_model_is_measured_again(model: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "out.gguf", tmp_path / "text.txt"
    text.write_text(TEXT)
    marks = []
    for step in range(3):
        if step == 1:
            text.write_text(TEXT + "more")
        if step == 2:
            text_model.write(model, seed=1)
        job, _, kept = prepared(model, out, text, bpw=4.0)
        job.source.close()
        marks.append(json.loads(kept.read_text())["fingerprint"])
    assert len(set(marks)) == 3


def test_probes_agree_with_the_whole_model(model: Path) -> None:
    """A probe runs only the layers behind it; the slow way runs all of them."""
    source = open_source(model)
    tokens = np.random.default_rng(0).integers(2, 200, (3, 40)).astype(np.int32)
    prober = Prober(source, tokens, 4, 2, threads=1, exact=True)
    names = [name for _, found in places(prober.plan) for name in found]
    wanted = {name: _sensitivity.Coarse("q3_k") for name in names}
    wanted[names[0]] = _sensitivity.Coarse("q8_0", 5.0)
    seen = 0
    for klds in prober.layers(wanted, {}):
        for name, kld in klds.items():
            alone = prober.mixture({name: prober.coarse(name, wanted[name], None)})
            assert kld == pytest.approx(alone, rel=1e-6, abs=1e-9)
            assert kld > 1e-6
            seen += 1
    assert seen == len(names) == 15
    assert places(prober.plan)[-1] == (HEAD, ["token_embd.weight"])
    source.close()


def test_errors_multiplied_are_those_errors(model: Path) -> None:
    source = open_source(model)
    prober = Prober(source, np.full((1, 16), 5, np.int32), 0, 1, threads=1, exact=True)
    name = "blk.0.ffn_up.weight"
    exact = source.tensors[name].decode()
    once = prober.coarse(name, _sensitivity.Coarse("q4_0"), None).decode() - exact
    thrice = prober.coarse(name, _sensitivity.Coarse("q4_0", 3.0), None).decode() - exact
    assert np.allclose(thrice, 3 * once, atol=1e-6)
    assert np.abs(once).max() > 1e-3
    source.close()


def test_a_wish_leaves_no_choice(known: Path, text: Path, tmp_path: Path) -> None:
    wishes = recipe.overrides(["ffn_down=q5_0", "attn_norm=q8_0"], embedding="q6_k")
    job, allocation, _ = prepared(known, tmp_path / "out.gguf", text, bpw=5.0, wishes=wishes)
    with job:
        assert any("attn_norm" in each for each in job.warnings)
    made = allocation.formats
    assert {made[n] for n in made if "ffn_down" in n} == {"q5_0"}
    assert made["token_embd.weight"] == "q6_k"
    assert len(set(made.values())) > 2 or job.result().bits_per_weight < 5.5


def test_rows_that_fit_no_large_block(tmp_path: Path, text: Path) -> None:
    """576 columns: types in blocks of 32 alone."""
    weights = {
        name: np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
        for name in ("one.weight", "token_embd.weight")
    }
    from trit.budget._menu import errors, menu, sample

    assert menu(96) == ["iq4_nl", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16"]
    assert menu(100) == ["f16"]
    path = small_model.write(tmp_path / "odd.gguf", weights, "f32")
    source = open_source(path)
    parts = sample(source.tensors["one.weight"], None)
    lost = errors(parts, menu(96), 1)
    assert lost["f16"] < lost["q8_0"] < lost["q5_1"] < lost["q4_0"] < 0.02
    source.close()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fit": 1000}, "smallest file has"),
        ({"bpw": 0.5}, "bits per weight"),
        ({"fit_ram": "20MiB", "ctx": 64}, "keys and values"),
    ],
)
def test_impossible_budgets(
    asked: dict[str, Any], words: str, model: Path, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        prepared(model, tmp_path / "out.gguf", text, **asked)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["model.gguf"]  # refused before anything was measured


def test_a_divergence_that_nothing_stays_below(text: Path, tmp_path: Path) -> None:
    model = text_model.write(tmp_path / "model.gguf", matrices="f32")
    with pytest.raises(UsageError, match="even the largest"):
        prepared(model, tmp_path / "out.gguf", text, max_kld=1e-15)


@pytest.mark.parametrize(
    "asked",
    [
        {"fit": "3.2 parsecs"},
        {"fit": "0"},
        {"fit": "-1GiB"},
        {"fit_ram": ""},
        {"bpw": float("nan")},
        {"bpw": 0.0},
        {"max_kld": -1.0},
        {"fit": "1GiB", "bpw": 4.0},
        {"bpw": 4.0, "ctx": 100},
        {"fit_ram": "1GiB", "ctx": 0},
    ],
)
def test_nonsense(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        budget.target(**asked)


def test_sizes_as_people_write_them() -> None:
    known = {"3.2GiB": 3435973836, "700MB": 700_000_000, "1 kib": 1024, "12345": 12345, 999: 999}
    for text, size in known.items():
        wanted = budget.target(fit=text)  # type: ignore[arg-type]
        assert wanted is not None and wanted.value == size
    with pytest.raises(UsageError, match="--fit 1e: expected a size such as"):
        budget.target(fit="1e")


def test_a_file_in_the_way_stays(model: Path, text: Path, tmp_path: Path) -> None:
    other = tmp_path / f"model{SUFFIX}"
    other.write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        prepared(model, tmp_path / "out.gguf", text, bpw=4.0)
    assert other.read_text() == "mine"


def test_weights_that_are_no_numbers(tmp_path: Path, text: Path) -> None:
    path = text_model.write(tmp_path / "model.gguf", matrices="f32")
    with gguf.open(path) as file:
        offset = file.tensors["blk.1.ffn_up.weight"].data
        at = path.read_bytes().find(offset[0].tobytes())
    with path.open("r+b") as raw:
        raw.seek(at)
        raw.write(np.array([np.inf], "<f4").tobytes())
    with pytest.raises((InvalidFileError, TritError)):
        prepared(path, tmp_path / "out.gguf", text, bpw=4.0)
    assert not (tmp_path / "out.gguf").exists()


def test_mixtures_are_measured_and_correct_the_prediction(
    model: Path, text: Path, tmp_path: Path
) -> None:
    job, allocation, kept = prepared(model, tmp_path / "out.gguf", text, bpw=3.0)
    job.source.close()
    measured = json.loads(kept.read_text())["mixtures"]
    assert len(measured) >= 2
    assert all(each["measured"] > 0 and each["predicted"] > 0 for each in measured)
    summed = sum(entry["predicted_kld"] for entry in allocation.tensors.values())
    assert allocation.kld == pytest.approx(corrected(summed, measured))


def test_correction_goes_through_the_points_and_rises() -> None:
    points = [{"predicted": 0.03, "measured": 0.02}, {"predicted": 1.0, "measured": 2.0}]
    assert corrected(0.03, points) == pytest.approx(0.02)
    assert corrected(1.0, points) == pytest.approx(2.0)
    assert corrected(0.003, points) == pytest.approx(0.002)
    assert corrected(10.0, points) == pytest.approx(20.0)
    values = [corrected(cost, points) for cost in np.geomspace(1e-4, 10, 50)]
    assert all(one < other for one, other in itertools.pairwise(values))
    assert corrected(0.5, []) == 0.5
    assert corrected(0.0, points) == 0.0


def test_mixtures_lose_about_what_they_should() -> None:
    random = np.random.default_rng(0)
    names = [f"blk.{i}.ffn_up.weight" for i in range(30)]
    bits = {"iq2_xxs": 2.06, "iq3_xxs": 3.06, "q4_k": 4.5, "q6_k": 6.56}
    costs = {n: {f: 3 * random.random() * 4.0**-b for f, b in bits.items()} for n in names}
    made = mixtures(dict.fromkeys(names, (64, 256)), costs)
    for (cost, chosen), loss in zip(made, LOSSES, strict=True):
        assert cost == pytest.approx(sum(costs[n][f] for n, f in chosen.items()))
        assert 0.7 * loss < cost <= loss


@pytest.mark.parametrize("window", [None, 96])
def test_cache_takes_what_was_reckoned(model: Path, window: int | None) -> None:
    """Of a layer with a window never more than that, however long the context."""
    with checkpoint.open(model) as file:
        plan = archs.plan(file)
        first, *rest = plan.layers
        first = replace(first, mixer=replace(first.mixer, window=window))
        plan = replace(plan, layers=(first, *rest))
        engine = Engine(plan, file.tensors, threads=1, ctx=1500)
        most = 0
        for start in range(0, 1500, 250):
            engine.forward(Rows.of([5] * 250, start))
            most = max(most, engine.cache_bytes())
    reckoned = cache_bytes(plan, 1500)
    assert most <= reckoned <= most * (1.0 if window is None else 1.25)


def test_more_context_leaves_less_for_weights(known: Path, text: Path, tmp_path: Path) -> None:
    """And what is left for them is used."""
    with checkpoint.open(known) as file:
        plan = archs.plan(file)
        beside = needs(plan, 0, 64, metadata=file.metadata, threads=THREADS).total
    job, _, _ = prepared(known, tmp_path / "out.gguf", text, fit_ram=beside + 700_000, ctx=64)
    with job:
        assert 650_000 < job.result().bytes <= 700_000
