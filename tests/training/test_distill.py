"""Whole distillations, small: the file is what was trained, and a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="distilling needs torch (extra train)")

import torch

import small_model
import text_model
import tiny_distillation as tiny
import tiny_run
from trit.errors import TritError, UnsupportedError, UsageError
from trit.files import gguf
from trit.training import log as logs
from trit.training import state as states
from trit.training.distill import DistillResult, DistillSettings, distill, prepare

KILLS = 6


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.teacher(tmp_path_factory.mktemp("teacher") / "teacher.gguf")


@pytest.fixture(scope="module")
def whole(teacher: Path) -> DistillResult:
    """The run that nothing disturbs."""
    return distill(teacher, tiny.SETTINGS, teacher.parent / "whole", threads=1)


def same(result: DistillResult, whole: DistillResult) -> None:
    assert tiny_run.diary(result.path) == tiny_run.diary(whole.path)
    files = [np.load(each.path / states.FILE) for each in (result, whole)]
    for name in files[0].files:
        assert name == "about" or np.array_equal(*(file[name] for file in files)), name
    assert result.kld_after == whole.kld_after
    assert result.gguf.read_bytes() == whole.gguf.read_bytes()


def test_it_learns(whole: DistillResult) -> None:
    assert whole.best_step == 12
    assert whole.kld_after < 0.9 * whole.kld_before
    assert whole.kld_torch < 2e-3  # the engine rounds activations to 8 bits
    steps = [each for each in logs.read(whole.path) if each["event"] == "step"]
    assert [each["step"] for each in steps] == list(range(1, 13))
    measured = [each for each in logs.read(whole.path) if each["event"] == "held_out"]
    assert [each["step"] for each in measured] == [0, 4, 8, 12]
    assert measured[-1]["kld"] < 0.9 * measured[0]["kld"]


def test_the_file_decodes_to_what_was_trained(whole: DistillResult, teacher: Path) -> None:
    with prepare(teacher, tiny.SETTINGS, whole.path, 1) as prepared:
        session = prepared.session
        session.choose_best(prepared.start.tensors)
        trained = session.student.network.weights
        with gguf.open(whole.gguf) as file, gguf.open(whole.path / "start.gguf") as start:
            moved = 0
            for name, tensor in file.tensors.items():
                assert np.array_equal(tensor.decode(), trained[name].detach().numpy()), name
                before = start.tensors[name]
                assert (tensor.format, tensor.shape) == (before.format, before.shape)
                moved += int(not np.array_equal(tensor.data, before.data))
            assert moved == len(file.tensors)
            kinds = {tensor.format.name for tensor in file.tensors.values()}
            assert {"q2_k", "q3_k", "f32"} <= kinds
            assert file.metadata["trit.distill.best_step"] == 12
            assert file.metadata["trit.distill.teacher"] == "teacher.gguf"
            settings = json.loads(str(file.metadata["trit.distill.settings"]))
            assert settings["data"] == ["essay.txt"] and settings["rate"] == 2e-3


@pytest.mark.parametrize("student", ["Q4_0", "Q5_1", "Q4_K_M", "Q3_K_S", "IQ4_XS"])
def test_every_format_is_written_as_trained(
    student: str, whole: DistillResult, teacher: Path, tmp_path: Path
) -> None:
    settings = tiny.settings(
        student=student,
        steps=2,
        measure_every=1,
        calibration=None,
        imatrix=whole.path / "start.imatrix.gguf",
    )
    result = distill(teacher, settings, tmp_path / "run", threads=1)
    with prepare(teacher, settings, result.path, 1) as prepared:
        prepared.session.choose_best(prepared.start.tensors)
        trained = prepared.session.student.network.weights
        with gguf.open(result.gguf) as file:
            for name, tensor in file.tensors.items():
                assert np.array_equal(tensor.decode(), trained[name].detach().numpy()), name


def test_killed_at_random_moments(whole: DistillResult, teacher: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "whole"
    for _ in range(KILLS):
        lines = int(random.integers(0, 9))

        def die(entry: dict[str, Any]) -> None:
            nonlocal lines
            lines -= 1
            if lines < 0:
                raise Killed

        try:
            distill(teacher, tiny.SETTINGS, folder, threads=1, on_event=die)
            (folder / states.FILE).unlink()  # over before its end came: begin again
        except Killed:
            with (folder / logs.FILE).open("a") as file:  # what a kill while writing leaves
                file.write('{"event": "step", "st')
            (folder / f"{states.FILE}.partial").write_bytes(b"half")
    same(distill(teacher, tiny.SETTINGS, folder, threads=2), whole)


def test_killed_for_real(whole: DistillResult, teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tiny_distillation as tiny\n"
        "from trit.training.distill import distill\n"
        "distill(sys.argv[2], tiny.SETTINGS, sys.argv[3], threads=1)"
    )
    tests = str(Path(__file__).parents[1])
    for lines in (3, 10):
        process = subprocess.Popen(
            [sys.executable, "-c", script, tests, str(teacher), str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        end = time.monotonic() + 240
        while len(logs.read(folder)) < lines and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    same(distill(teacher, tiny.SETTINGS, folder, threads=1), whole)


def test_ctrl_c_saves_and_goes_on(whole: DistillResult, teacher: Path, tmp_path: Path) -> None:
    stops = iter([False] * 6 + [True])
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, tiny.SETTINGS, tmp_path / "whole", threads=1, stop=lambda: next(stops))
    assert logs.read(tmp_path / "whole")[-1]["step"] == 7
    same(distill(teacher, tiny.SETTINGS, tmp_path / "whole"), whole)


def test_a_start_that_is_never_beaten_is_what_is_written(teacher: Path, tmp_path: Path) -> None:
    settings = tiny.settings(student="Q8_0", rate=1.0, scale_rate=1.0, steps=4, measure_every=2)
    result = distill(teacher, settings, tmp_path / "run", threads=1)
    assert result.best_step == 0 and result.kld_after == result.kld_before
    with gguf.open(result.gguf) as file, gguf.open(tmp_path / "run" / "start.gguf") as start:
        for name, tensor in file.tensors.items():
            assert np.array_equal(tensor.data, start.tensors[name].data)


def test_the_teacher_writes(teacher: Path, tmp_path: Path) -> None:
    settings = tiny.settings(data=(), held_out=None, steps=4, measure_every=2)
    first = distill(teacher, settings, tmp_path / "one" / "run", threads=1)
    tokens = np.fromfile(first.path / "train.bin", "<u4")
    assert len(tokens) >= settings.steps * settings.batch * settings.context
    assert (tokens == 0).sum() > 10  # beginnings
    assert not list(first.path.glob("sampled-*"))
    about = json.loads((first.path / "data.json").read_text())
    assert about["texts"] == [{"name": "text by teacher.gguf", "seed": 3}]
    assert "temperature 1" in about["provenance"]

    begun: list[DistillSettings] = []

    def die(what: str, done: int, total: int) -> None:
        if len(list(tmp_path.glob("two/run/sampled-*-00000.bin"))) > len(begun):
            raise Killed

    other = tiny.settings(data=(), held_out=None, steps=4, measure_every=2, seed=4)
    for killed in (other, settings):  # what another seed wrote is not taken for its own
        with pytest.raises(Killed):
            distill(teacher, killed, tmp_path / "two" / "run", threads=1, on_progress=die)
        begun.append(killed)
    same(distill(teacher, settings, tmp_path / "two" / "run", threads=1), first)


def test_a_file_is_trained_as_it_is(whole: DistillResult, teacher: Path, tmp_path: Path) -> None:
    """What was distilled goes on; and plain numbers are trained to plain numbers."""
    settings = tiny.settings(student=str(whole.gguf), calibration=None, steps=4)
    more = distill(teacher, settings, tmp_path / "more", threads=1)
    assert more.kld_before == pytest.approx(whole.kld_after, rel=1e-6)
    assert more.kld_after < more.kld_before
    hurt = tiny.teacher(tmp_path / "hurt.gguf", seed=0)

    def hurting(weights: dict[str, Any]) -> None:
        weights["token_embd.weight"] *= 0.3
        weights["blk.1.ffn_down.weight"] *= 0.5

    text_model.write(hurt, change=hurting)
    settings = tiny.settings(student=str(hurt), calibration=None, cross_entropy=0.1, relation=0.1)
    healed = distill(teacher, settings, tmp_path / "healed", threads=1)
    assert healed.kld_after < 0.9 * healed.kld_before
    with gguf.open(healed.gguf) as file:
        assert file.tensors["blk.0.ffn_up.weight"].format.name == "f16"
    step = [each for each in logs.read(healed.path) if each["event"] == "step"][-1]
    assert step["loss"] == pytest.approx(step["kld"] + 0.1 * step["nats_per_token"])
    assert step["relation"] > 0


def test_what_cannot_be_trained_is_said(teacher: Path, tmp_path: Path) -> None:
    settings = tiny.settings(student="IQ3_S", steps=2, measure_every=1)
    with prepare(teacher, settings, tmp_path / "run", 1) as prepared:
        assert "tensors are not trained: iq3_s cannot be" in prepared.remarks[0]
        assert len(prepared.remarks) == 1
        result = prepared.run()
    assert "blk.0.ffn_up.weight" in result.fixed


def test_rows_that_do_not_fit_are_said(tmp_path: Path) -> None:
    odd = tiny.teacher(tmp_path / "odd.gguf", odd=32)
    settings = tiny.settings(student="Q4_K_S", steps=1)
    for _ in range(2):  # when the folder is made, and when the run goes on
        with prepare(odd, settings, tmp_path / "run", 1) as prepared:
            assert any("do not fit Q4_K: Q5_0 instead" in each for each in prepared.remarks)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"student": "Q4_9"}, "expected a type such as Q4_K_M, or the path"),
    ({"steps": 0}, "--steps 0: expected 1 or more"),
    ({"rate": -1.0}, "--rate"),
    ({"held_out": 0.9}, "--held-out"),
    ({"data": ()}, "--held-out is a share of --data"),
    ({"seed": 1 << 32}, "--seed"),
    ({"device": "tpu"}, "--device tpu: expected one of auto, cpu, cuda"),
    ({"context": 4096}, "--context 4096: .* was made for 128 tokens"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_settings_that_cannot_be_meant(
    changes: dict[str, Any], message: str, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        distill(teacher, tiny.settings(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_refused(whole: DistillResult, teacher: Path, tmp_path: Path) -> None:
    other = tiny.settings(rate=1e-3)
    with pytest.raises(UsageError, match=r"was begun otherwise: rate was 0.002, is 0.001"):
        distill(teacher, other, whole.path)
    stranger = tiny.teacher(tmp_path / "stranger.gguf", seed=1)
    with pytest.raises(UsageError, match="the teacher is another file"):
        distill(stranger, tiny.SETTINGS, whole.path)
    small = small_model.write(tmp_path / "small.gguf", small_model.arrays())
    settings = tiny.settings(student=str(small), calibration=None)
    with pytest.raises(UsageError, match=r"has 64 tokens, .*teacher.* 258: a student needs"):
        distill(teacher, settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds other things \(thesis.txt\)"):
        distill(teacher, tiny.SETTINGS, tmp_path / "full")
    with pytest.raises(UsageError, match="leave out --imatrix"):
        distill(teacher, tiny.settings(student=str(whole.gguf)), tmp_path / "run")
    (tmp_path / "short.txt").write_text("ten bytes\n" * 40)
    short = tiny.settings(data=(tmp_path / "short.txt",), context=100, held_out=0.3)
    with pytest.raises(UsageError, match="two sequences of 100"):
        distill(teacher, short, tmp_path / "short")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--device is 'cuda', and torch finds no GPU"):
            distill(teacher, tiny.settings(device="cuda"), tmp_path / "gpu")
        assert not (tmp_path / "gpu").exists()


def test_a_file_it_was_begun_with_has_changed(teacher: Path, tmp_path: Path) -> None:
    text = tmp_path / "calibration.txt"
    shutil.copyfile(tiny.ESSAY, text)
    settings = tiny.settings(student="Q4_0", steps=1, calibration=str(text))
    prepare(teacher, settings, tmp_path / "run", 1).__exit__(None, None, None)
    text.write_text(text.read_text("utf-8") + "One more sentence.")
    with pytest.raises(UsageError, match="--calibration is another file"):
        prepare(teacher, settings, tmp_path / "run", 1)


def test_experts_are_refused(tmp_path: Path) -> None:
    weights = small_model.mixture()
    random = np.random.default_rng(0)
    weights["token_embd.weight"] = random.standard_normal((258, 256)).astype(np.float32)
    path = text_model.write(tmp_path / "dense.gguf")
    with gguf.open(path) as file:
        keys = {key: value for key, value in file.values.items() if key.startswith("tokenizer.")}
    mixed = small_model.write(
        tmp_path / "mixed.gguf", weights, extra=keys | small_model.MIXTURE_KEYS
    )
    with pytest.raises(UnsupportedError, match="mixture of experts"):
        distill(mixed, tiny.settings(student="Q8_0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_texts_of_one_name(teacher: Path, tmp_path: Path) -> None:
    """They are compared in order, so a run of two goes on."""
    lines = tiny.ESSAY.read_text("utf-8").splitlines(keepends=True)
    paths = tmp_path / "a" / "t.txt", tmp_path / "b" / "t.txt"
    for path, part in zip(paths, (lines[::2], lines[1::2]), strict=True):
        path.parent.mkdir()
        path.write_text("".join(part), "utf-8")
    settings = tiny.settings(student=str(teacher), calibration=None, data=paths)
    for _ in range(2):
        with prepare(teacher, settings, tmp_path / "run", 1):
            pass
    paths[1].write_text("other\n")
    with pytest.raises(UsageError, match=r"the text t.txt has changed"):
        prepare(teacher, settings, tmp_path / "run", 1)


def test_a_measurement_that_is_no_number(teacher: Path, tmp_path: Path) -> None:
    settings = tiny.settings(rate=1e30, measure_every=1)
    with pytest.raises(TritError, match=r"after step 1 is no longer a number. Lower --rate"):
        distill(teacher, settings, tmp_path / "run", threads=1)


def test_without_torch(teacher: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError, match="distilling needs torch"):
        distill(teacher, DistillSettings("Q4_0"), tmp_path / "run")
