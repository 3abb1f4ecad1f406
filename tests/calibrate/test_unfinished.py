"""A measuring that is broken off goes on where it stood, and comes to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import small_model
import talking_model
import text_model
from trit.calibrate import Importance, _data, _sampled, _unfinished, _walk, imatrix
from trit.calibrate._data import passages
from trit.cli import main
from trit.cli._measuring import Measuring
from trit.errors import TritError
from trit.files import _chain
from trit.files._chain import Chain

CTX = 64
LAYERS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_model, "LAYERS", LAYERS)
        return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(text_model.TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Importance:
    """The one that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    return measure(model, text, folder)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept after each layer."""
    monkeypatch.setattr(_unfinished, "KEEP_SECONDS", 0.0)


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that are opened to be measured."""
    opened: list[int] = []
    real = _walk.open_layer

    def watched(*args: object, **named: object) -> object:
        opened.append(args[2])  # type: ignore[arg-type]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(_walk, "open_layer", watched)
    return opened


def measure(model: Path, text: Path | None, folder: Path, **named: object) -> Importance:
    arguments = {"ctx": CTX, "output": True, "gram": folder / "gram.gguf", "threads": 1, **named}
    return imatrix(model, folder / "out.gguf", text, **arguments)  # type: ignore[arg-type]


def same(folder: Path, whole: Importance) -> None:
    assert whole.gram is not None
    assert sorted(path.name for path in folder.iterdir()) == ["gram.gguf", "out.gguf"]
    assert (folder / "out.gguf").read_bytes() == whole.path.read_bytes()
    assert (folder / "gram.gguf").read_bytes() == whole.gram.read_bytes()


class Stop:
    """Progress that breaks off at the n-th call."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error = after, error

    def __call__(self, what: str, done: int, total: int) -> None:
        self.left -= what == "measuring"
        if self.left < 0:
            raise self.error


def _half(what: str, done: int, total: int) -> None:
    """Progress that breaks off in the second half."""
    if what == "measuring" and done > total // 2:
        raise KeyboardInterrupt


def test_broken_off_at_random_moments(
    model: Path, text: Path, whole: Importance, tmp_path: Path, layers: list[int]
) -> None:
    random = np.random.default_rng(0)
    breaks = 0
    for _ in range(30):
        error = (KeyboardInterrupt, MemoryError)[breaks % 2]
        try:
            found = measure(model, text, tmp_path, on_progress=Stop(random.integers(1, 4), error))
            break
        except error:
            breaks += 1
    assert breaks >= 3 and found.resumed > 0
    assert layers == sorted(layers) and len(layers) == LAYERS + breaks  # one each is lost
    assert (found.unseen, found.silent, found.texts) == (whole.unseen, whole.silent, whole.texts)
    same(tmp_path, whole)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from trit.calibrate import _unfinished, _walk, imatrix
    from trit.files import gguf
    from trit.files._chain import Chain

    model, text, folder, log = map(Path, sys.argv[1:5])
    _unfinished.KEEP_SECONDS = 0.0
    left = 0

    def step(*ignored):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner, name):
        real = getattr(owner, name)
        def stepping(*args, **named):
            step()
            found = real(*args, **named)
            step()
            return found
        setattr(owner, name, stepping)

    for owner, name in (
        (Path, "replace"), (Path, "unlink"), (gguf.Writer, "add"),
        (gguf.Writer, "seal"), (gguf.Writer, "publish"), (Chain, "save"), (Chain, "discard"),
    ):
        around(owner, name)

    os.fsync = step  # what is killed has no need of it, and it takes most of the time

    def watched(*args, **named):
        with log.open("a") as file:
            file.write(f"{args[2]}\\n")
        return opened(*args, **named)
    opened, _walk.open_layer = _walk.open_layer, watched

    for name, count in zip(sys.argv[5::2], map(int, sys.argv[6::2])):
        place = folder / name
        place.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            left = count
            imatrix(
                model, place / "out.gguf", text, ctx=64, output=True,
                gram=place / "gram.gguf", threads=1, on_progress=step,
            )
            (folder / "steps").write_text(str(count - left))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        layers = log.read_text().split() if log.exists() else []
        print(code, int((place / "out.gguf").exists()), *layers, flush=True)
"""


class Run(NamedTuple):
    """How a process ended, whether the file is there, the layers it opened."""

    code: int
    done: bool
    layers: list[int]


def run(model: Path, text: Path, folder: Path, *runs: tuple[str, int]) -> list[Run]:
    """In each folder a process that is killed after so many steps; 0: never."""
    words = [str(word) for pair in runs for word in pair]
    script = [sys.executable, "-c", textwrap.dedent(KILLED)]
    told = subprocess.run(
        [*script, *map(str, (model, text, folder, folder / "log")), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [[int(word) for word in line.split()] for line in told.splitlines()]
    return [Run(code, bool(done), layers) for code, done, *layers in lines]


def test_killed_at_any_moment(model: Path, text: Path, whole: Importance, tmp_path: Path) -> None:
    run(model, text, tmp_path, ("straight", 0))
    same(tmp_path / "straight", whole)
    steps = int((tmp_path / "steps").read_text())
    random = np.random.default_rng(1)
    plans = {name: [*random.integers(1, steps // 3, 4).tolist(), 0] for name in ("a", "b")} | {
        str(left): [steps - left, 0] for left in range(1, 25, 4)
    }  # while it is finished, too
    ended = iter(run(model, text, tmp_path, *((n, k) for n, p in plans.items() for k in p)))
    kills = 0
    for name, plan in plans.items():
        runs = [next(ended) for _ in plan]
        assert runs[-1].code == 0 and all(each.code in (0, -signal.SIGKILL) for each in runs)
        kills += sum(each.code != 0 for each in runs)
        early = [each for each in runs[:-1] if not each.done]
        if len(early) < len(runs) - 1:
            continue  # what comes after the end is measured anew
        opened = [layer for each in runs for layer in each.layers]
        assert opened == sorted(opened) and len(opened) <= LAYERS + len(early)
        same(tmp_path / name, whole)
    assert kills > 10


def test_what_is_kept_is_of_this_job_and_whole(
    model: Path, text: Path, whole: Importance, tmp_path: Path, layers: list[int]
) -> None:
    chain, other = tmp_path / "out.gguf.partial.chain", text.with_name("other.txt")
    other.write_text(text_model.TEXT[::-1])

    def damage(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:1000])

    cases: list[tuple[Callable[[Path], object] | None, dict[str, object]]] = [
        (damage, {}),
        (cut, {}),
        (lambda path: path.write_bytes(b""), {}),
        (None, {"ctx": 32}),
        (None, {"text": other}),
        (None, {"exact": True}),
    ]
    for spoil, begun in cases:
        with pytest.raises(KeyboardInterrupt):
            measure(model, **{"text": text, "folder": tmp_path, **begun, "on_progress": Stop(9)})  # type: ignore[arg-type]
        assert chain.exists() and (tmp_path / "gram.gguf.partial").exists()
        if spoil is not None:
            spoil(chain)
        layers.clear()
        said: list[str] = []
        found = measure(model, text, tmp_path, said=said.append)
        assert layers == [*range(LAYERS)] and found.resumed == 0
        assert len(said) == 1 and "out.gguf.partial is damaged, or of another job" in said[0]
        same(tmp_path, whole)


def test_without_the_unfinished_file_states_are_of_no_use(
    model: Path, text: Path, whole: Importance, tmp_path: Path, layers: list[int]
) -> None:
    for name in ("out.gguf.partial", "out.gguf.partial.journal", "gram.gguf.partial"):
        with pytest.raises(KeyboardInterrupt):
            measure(model, text, tmp_path, on_progress=Stop(8))
        (tmp_path / name).unlink()
        layers.clear()
        measure(model, text, tmp_path)
        assert layers == [*range(LAYERS)]
        same(tmp_path, whole)


def test_progress_begins_where_it_stood(
    model: Path, text: Path, whole: Importance, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        measure(model, text, tmp_path, on_progress=Stop(7))
    found = measure(model, text, tmp_path, on_progress=lambda w, done, of: seen.append((done, of)))
    assert found.resumed == 3 and found.to_dict()["resumed_layers"] == 3
    assert seen[0][0] > 3 * seen[0][1] // LAYERS and seen[-1][0] == seen[-1][1]
    same(tmp_path, whole)


def test_once_a_minute(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saved = [0.0], []
    monkeypatch.setattr(_unfinished, "KEEP_SECONDS", 60.0)
    monkeypatch.setattr(_unfinished, "time", SimpleNamespace(monotonic=lambda: now[0]))
    real = Chain.save
    monkeypatch.setattr(Chain, "save", lambda self, s: (saved.append(s.index), real(self, s)))

    def pass_time(what: str, done: int, total: int) -> None:
        now[0] += 17  # two a layer

    measure(model, text, tmp_path, on_progress=pass_time)
    assert saved == [2, 4]


def test_without_room_it_goes_on_and_says_so_once(
    model: Path, text: Path, whole: Importance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    full = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(_chain, "shutil", full)
    with pytest.raises(KeyboardInterrupt):
        measure(model, text, tmp_path, said=said.append, on_progress=Stop(9))
    assert len(said) == 1 and "there is no room" in said[0] and not list(tmp_path.iterdir())
    measure(model, text, tmp_path, said=said.append)
    assert len(said) == 2
    same(tmp_path, whole)


def test_what_cannot_succeed_keeps_nothing(text: Path, tmp_path: Path) -> None:
    model = text_model.write(
        tmp_path / "model.gguf",
        matrices="f32",
        change=lambda w: w["blk.1.ffn_up.weight"].fill(1e38),
    )
    with pytest.raises(TritError, match="layer 1"):
        measure(model, text, tmp_path, exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_text_of_the_models_own_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sampled, "LENGTH", 80)
    parts, about = passages()
    monkeypatch.setattr(_data, "passages", lambda: ([part[:200] for part in parts], about))
    model = talking_model.write(tmp_path / "model.gguf")
    straight = imatrix(model, tmp_path / "straight.gguf", ctx=CTX, threads=1)
    out = tmp_path / "out.gguf"
    for stop, resumed in ((Stop(0), 0), (_half, 1)):  # in the first layer, and behind it
        with pytest.raises(KeyboardInterrupt):
            imatrix(model, out, ctx=CTX, threads=1, on_progress=stop)
        with monkeypatch.context() as patch:
            patch.setattr(_sampled, "_write", None)
            found = imatrix(model, out, ctx=CTX, threads=1)
        assert out.read_bytes() == straight.path.read_bytes() and found.texts == straight.texts
        assert found.resumed == resumed


@pytest.mark.parametrize("verb", ["imatrix", "quantize", "budget"])
def test_ctrl_c_says_what_is_kept(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    out, kept = tmp_path / "o.gguf", tmp_path / "o.imatrix.gguf"
    arguments = {
        "imatrix": ["imatrix", str(model), "-f", str(text), "-o", str(kept), "-c", "64"],
        "quantize": ["quantize", str(model), str(out), "--type", "Q4_K_M"],
        "budget": ["quantize", str(model), str(out), "--bpw", "5"],
    }[verb]
    if verb != "imatrix":
        arguments += ["--calibration", str(text)]
    if verb == "budget":
        kept = tmp_path / "model.imatrix.gguf"
    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "__call__", lambda self, *event: _half(*event))
        assert main([*arguments, "-t", "1"]) == 130
    said = capsys.readouterr().err
    words = f"what is done is kept in {kept}.partial; the same command goes on from there"
    assert said.count(words) == 1 and "interrupted" in said
    if verb == "budget":  # the rest of it takes its time
        return
    assert main([*arguments, "-t", "1"]) == 0
    assert kept.exists() and not list(tmp_path.glob("*.partial*"))
    if verb == "imatrix":
        assert "from an interrupted run: 1 layer" in capsys.readouterr().out
