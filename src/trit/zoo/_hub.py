"""Models of Hugging Face repositories, through huggingface_hub.

The files stay in the Hugging Face cache, which other tools share; nothing is copied. HF_HOME,
HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean there. `hub.json` in trit's cache notes
what was asked for, so that a model once pulled is found again without the network.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trit.errors import SourceError
from trit.zoo import _cache, _choice, _verify

_NOTES = "hub.json"
_NETWORK_PACKAGES = (
    "huggingface_hub",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "requests",
    "hf_xet",
)


@dataclass(frozen=True)
class HubModel:
    """A model in the Hugging Face cache that was pulled under `name`."""

    name: str
    path: Path
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.files)


def pulled() -> dict[str, HubModel]:
    """What was pulled and is still in the Hugging Face cache, by the name it was pulled under."""
    models = {}
    for name, note in _cache.load_notes(_NOTES).items():
        model = HubModel(name, Path(note["path"]), tuple(Path(file) for file in note["files"]))
        if model.path.exists() and all(file.exists() for file in model.files):
            models[name] = model
    return models


def pull(reference: str, on_progress: _cache.OnProgress, announce: _cache.Announce) -> Path:
    """Fetch what `hf:org/repo[:QUANT]` means now; without the network, what the cache has of it.

    Raises UsageError (the reference), SourceError (repository, network, hash), DoesNotFitError
    (disk), InvalidFileError (the model itself).
    """
    repo, quant = _choice.split(reference)
    try:
        sizes = _list(repo, "main")
    except SourceError as error:
        cached = _cached_files(repo)
        if not cached:
            raise
        announce(f"{error} Looking in the Hugging Face cache instead.")
        chosen = _choice.choose(cached, quant, reference)
        files = [cached[name] for name in chosen.files]
    else:
        chosen = _choice.choose(sizes, quant, reference)
        files = fetch(
            repo, "main", {name: sizes[name] for name in chosen.files}, on_progress, announce
        )
    path = files[0].parent if chosen.folder else files[0]
    _accept(reference, path, files)
    return path


def config(reference: str, announce: _cache.Announce) -> Path:
    """The config.json of a repository of safetensors, fetched alone unless the cache has it.

    Errors as for `pull`; SourceError, which lists what there is, for a repository of GGUF files
    alone: what is in one is only known from the file.
    """
    repo, quant = _choice.split(reference)
    cached = _cached_files(repo)
    if quant is None and "config.json" in cached:
        return cached["config.json"]
    sizes = _list(repo, "main")
    if "config.json" not in sizes or quant is not None:
        files = [f"{n} ({size / (1 << 30):.1f} GiB)" for n, size in sizes.items() if "gguf" in n]
        raise SourceError(
            f"{reference} is not on this machine, and what a GGUF holds is known from the file "
            f"alone. There are: {', '.join(files) or 'none'}. 'trit pull' fetches one; or name a "
            "shape such as 7B."
        )
    announce(f"hf:{repo}: fetching config.json alone")
    return _download(repo, "main", "config.json", lambda grown: None)


def fetch(
    repo: str,
    revision: str,
    sizes: Mapping[str, int],
    on_progress: _cache.OnProgress,
    announce: _cache.Announce,
) -> list[Path]:
    """Have files of a repository in the Hugging Face cache; their paths there, in this order."""
    from huggingface_hub.constants import HF_HUB_CACHE

    present = _cached_files(repo, revision)
    missing = {name: size for name, size in sizes.items() if name not in present}
    total = sum(missing.values())
    if missing:
        _cache.require_space(Path(HF_HUB_CACHE), total, f"hf:{repo}")
        files = f"{len(missing)} file{'' if len(missing) == 1 else 's'}"
        announce(f"hf:{repo}: downloading {total / (1 << 20):.1f} MiB in {files}")
    paths, done = [], 0
    for name in sizes:

        def report(grown: int, before: int = done) -> None:
            on_progress(f"hf:{repo}", min(before + grown, total), total)

        paths.append(_download(repo, revision, name, report))
        done += missing.get(name, 0)
        report(0, done)
    return paths


def _download(repo: str, revision: str, name: str, report: Callable[[int], None]) -> Path:
    from huggingface_hub import hf_hub_download

    with _quiet_bars(), _explained(repo), _cache.watch_growth(_repo_folder(repo), report):
        return Path(hf_hub_download(repo, name, revision=revision))


def remove(model: HubModel) -> int:
    """Take a model out of the Hugging Face cache; bytes freed. What another name uses is kept."""
    others = {
        file for other in pulled().values() if other.name != model.name for file in other.files
    }
    freed = 0
    for file in model.files:
        if file not in others:
            freed += _remove_file(file)
            _verify.forget(file)
    _cache.change_notes(_NOTES, lambda notes: notes.pop(model.name, None))
    return freed


def _remove_file(link: Path) -> int:
    """Remove a file of a snapshot, and its blob when no other snapshot links to it."""
    blob = link.resolve()
    size = blob.stat().st_size
    link.unlink()
    if blob == link.absolute():
        return size
    snapshots = blob.parent.parent / "snapshots"
    if any(other.resolve() == blob for other in snapshots.rglob("*") if other.is_symlink()):
        return 0
    blob.unlink()
    return size


def note(name: str, path: Path, files: list[Path]) -> None:
    """Remember where the model pulled under `name` lies."""
    entry = {"path": str(path), "files": [str(file) for file in files]}
    _cache.change_notes(_NOTES, lambda notes: notes.update({name: entry}))


def _accept(reference: str, path: Path, files: list[Path]) -> None:
    """Check what came and note it; a file with a wrong hash leaves the cache."""
    for file in files:
        # The hub names a large file's blob by its sha256.
        expected = file.resolve().name
        if file.suffix in (".gguf", ".safetensors") and re.fullmatch("[0-9a-f]{64}", expected):
            check_hash(file, expected)
    _verify.verify(path)
    note(reference, path, files)


def check_hash(file: Path, expected: str) -> None:
    """SourceError, and the file gone, unless its hash is as expected."""
    if _verify.remembered(file) == expected:
        return
    got = _cache.sha256_of(file)
    if got != expected:
        _remove_file(file)
        raise SourceError(f"{file.name}: expected sha256 {expected}, got {got}. It was removed.")


def _list(repo: str, revision: str) -> dict[str, int]:
    """Files of a repository and their bytes."""
    from huggingface_hub import HfApi

    with _explained(repo):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def _repo_folder(repo: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))


def _cached_files(repo: str, revision: str = "main") -> dict[str, Path]:
    """Files of a repository that are in the cache already, by their names there."""
    folder = _repo_folder(repo)
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    snapshot = folder / "snapshots" / commit
    files = (path for path in snapshot.rglob("*") if path.is_file())
    return {str(path.relative_to(snapshot)).replace(os.sep, "/"): path for path in files}


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Switch huggingface_hub's own progress bars off; ours are drawn by the command."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what huggingface_hub and its network libraries raise into one SourceError."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise SourceError(
            f"hf:{repo} is gated: accept its terms on the repository's page, then set HF_TOKEN "
            "(or run 'hf auth login')."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise SourceError(
            f"hf:{repo}: no such repository. If it is private, set HF_TOKEN."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise SourceError(f"hf:{repo}: HF_HUB_OFFLINE is set.") from error
    except errors.EntryNotFoundError as error:
        raise SourceError(f"hf:{repo}: {_first_line(error)}") from error
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES)
        if full or not (isinstance(error, OSError) or package in _NETWORK_PACKAGES):
            raise
        raise SourceError(f"hf:{repo} cannot be reached: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
