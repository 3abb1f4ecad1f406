"""Is a pulled model what it should be: its hash, and no Inf, NaN or illegal code in its weights.

Every byte is read, so it is done once, at the pull, and remembered by size, time and hash. Loading
a model never comes here.
"""

from pathlib import Path

from trit.errors import SourceError
from trit.zoo import _cache

_NOTES = "checked.json"


def verify(path: Path, sha256: str | None = None) -> None:
    """Check a GGUF file or a folder of safetensors, unless it was checked and did not change since.

    `sha256` is the expected hash of a file. Raises SourceError for another hash, InvalidFileError
    for a file that breaks its format, or a weight that is Inf or NaN.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    known = [remembered(file) for file in files]
    if all(known) and (sha256 is None or known == [sha256]):
        return
    hashes = [_cache.sha256_of(file) for file in files]
    if sha256 is not None and hashes != [sha256]:
        raise SourceError(f"{path}: expected sha256 {sha256}, got {hashes[0]}.")
    check_weights(path, path)
    for file, got in zip(files, hashes, strict=True):
        remember(file, got)


def check_weights(path: Path, named: Path) -> None:
    """InvalidFileError, naming `named`, if a weight of the model at `path` is Inf or NaN."""
    # Imported here: there is numpy behind them, and a list of models needs neither.
    if path.is_dir():
        from trit.files import safetensors

        with safetensors.open(path) as folder:
            for tensor in folder.tensors.values():
                tensor.check_weights(named)
        return
    from trit.files import gguf

    with gguf.open(path) as file:
        for tensor in file.tensors.values():
            tensor.check_weights(named)


def remembered(path: Path) -> str | None:
    """The hash of a file that was checked and has kept its size and time since; else None."""
    note = _cache.load_notes(_NOTES).get(str(path.resolve()))
    if not isinstance(note, dict) or not path.exists():
        return None
    status = path.stat()
    same = note.get("size") == status.st_size and note.get("time") == status.st_mtime_ns
    return str(note.get("sha256")) if same else None


def remember(path: Path, sha256: str) -> None:
    """Note that a file was checked."""
    status = path.stat()
    note = {"size": status.st_size, "time": status.st_mtime_ns, "sha256": sha256}
    _cache.change_notes(_NOTES, lambda notes: notes.update({str(path.resolve()): note}))


def forget(path: Path) -> None:
    """Drop what was noted of a file that goes away."""
    _cache.change_notes(_NOTES, lambda notes: notes.pop(str(path.resolve()), None))
