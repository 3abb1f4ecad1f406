"""Where pulled models lie, and what is remembered about them.

Models joined from wheels lie in `$XDG_CACHE_HOME/trit/models` (default ~/.cache). Models from
Hugging Face stay in the Hugging Face cache, shared with every other tool; here is only a note that
they were asked for. `checked.json` remembers which files' weights were looked at, by size, time and
hash.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

from trit.errors import DoesNotFitError
from trit.files._whole import whole

OnProgress = Callable[[str, int, int], None]
"""Called as (what, done, total), both in bytes."""

Announce = Callable[[str], None]
"""Called with one line for the user: what is about to be downloaded, what was passed over."""

SPARE_BYTES = 16 << 20  # left free on the disk beside what is downloaded
_WATCH_SECONDS = 0.2
_READ_BYTES = 1 << 20


def root() -> Path:
    """trit's own cache folder. A relative XDG_CACHE_HOME is ignored, as its specification says."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "trit"


def models_folder() -> Path:
    """Where joined models lie."""
    return root() / "models"


def load_notes(name: str) -> dict[str, Any]:
    """A JSON object of the cache folder; empty when it is missing or was spoilt."""
    try:
        notes = json.loads((root() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def change_notes(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit a JSON object of the cache folder, one process at a time."""
    path = root() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path):
        notes = load_notes(name)
        change(notes)
        write_json(path, notes)


def write_json(path: Path, value: object) -> None:
    """Write whole or not at all."""
    with whole(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


@contextlib.contextmanager
def lock(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold `path` against other processes; `on_wait` is called before waiting for one of them.

    The operating system lets go of the lock when a process dies, so none is ever left behind.
    """
    with path.with_name(path.name + ".lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two pulls at once then only waste work
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def require_space(folder: Path, need_bytes: int, what: str) -> None:
    """DoesNotFitError unless the disk of `folder` (made or not yet) has room for `need_bytes`."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < need_bytes + SPARE_BYTES:
        mib = 1 << 20
        raise DoesNotFitError(
            f"{what} needs {need_bytes / mib:.0f} MiB on the disk of {folder}; "
            f"{free / mib:.0f} MiB are free. Make room, or set XDG_CACHE_HOME (for hf: models "
            "HF_HOME) to a folder on another disk."
        )


def sha256_of(path: Path, start: int = 0, count: int | None = None) -> str:
    """Hash of a file, or of `count` bytes of it from `start`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        left = path.stat().st_size - start if count is None else count
        while left > 0 and (piece := file.read(min(_READ_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    with contextlib.suppress(OSError):  # not every system opens folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def watch_growth(folder: Path, report: Callable[[int], None]) -> Iterator[None]:
    """Report how many bytes a folder grew by, now and then, while somebody else writes into it.

    Neither pip nor every version of huggingface_hub tells how far a download is; the files do.
    """
    finished = Event()
    before = _bytes_in(folder)

    def watch() -> None:
        while not finished.wait(_WATCH_SECONDS):
            report(max(0, _bytes_in(folder) - before))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):  # which passes over folders that vanish
        for name in names:
            with contextlib.suppress(OSError):  # temporary files vanish while one looks
                found = Path(place, name).lstat()
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
