"""The model a conversion reads: named tensors, keys with their exact types, and its identity.

The identity comes in two strengths. `fingerprint` (names, sizes, times) is instant and tells
whether an interrupted job may go on; `sha256` reads every byte and is what a file records.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trit.errors import UsageError
from trit.files import checkpoint, gguf
from trit.files.gguf import Tensor, Value

# What a folder's conversion depends on beside the weights.
FOLDER_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")


def trit_version() -> str:
    """This package's version."""
    try:
        return version("trit")
    except PackageNotFoundError:  # a source tree on PYTHONPATH
        return "unknown"


def core_sha256() -> str:
    """Of the compiled core's file, which rounds: in development the version stays the same."""
    from importlib.util import find_spec

    spec = find_spec("trit._core")
    assert spec is not None and spec.origin is not None, "the core is not built"
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


@dataclass(frozen=True)
class Source:
    """An open model; `paths` are the files it is made of."""

    path: Path
    paths: tuple[Path, ...]
    kind: str  # "gguf" or "hf"
    metadata: Mapping[str, object]
    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    close: Callable[[], None]

    @property
    def decoded_from(self) -> str | None:
        """How a folder is quantized whose weights are decoded as they are read, in words."""
        about = self.metadata.get(checkpoint.QUANTIZATION_KEY) if self.kind == "hf" else None
        return None if about is None else str(about)

    def fingerprint(self) -> list[list[str | int]]:
        """Name, size and time of each file, without reading any."""
        stats = [(path, path.stat()) for path in self.paths]
        return [[str(path.resolve()), s.st_size, s.st_mtime_ns] for path, s in stats]

    def sha256(self, on_progress: Callable[[int, int], None] | None = None) -> str:
        """Of the file; of several, the sha256 of the lines `sha256sum` would print for them."""
        total = sum(path.stat().st_size for path in self.paths)
        digests: list[str] = []
        before = 0

        def progress(done: int, of: int) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        for path in self.paths:
            digests.append(gguf.sha256(path, progress))
            before += path.stat().st_size
        if len(digests) == 1:
            return digests[0]
        lines = (f"{d}  {p.name}\n" for d, p in zip(digests, self.paths, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a Hugging Face folder or a GGUF; errors as for `files.checkpoint.open`."""
    given = Path(path)
    if not given.is_dir():
        return _from_gguf(given, given)
    model = checkpoint.open(given)
    if model.kind == "gguf":  # a folder that holds one
        model.close()
        return _from_gguf(given, min(given.glob("*.gguf")))
    files = {file for pattern in FOLDER_PATTERNS for file in given.glob(pattern)}
    return Source(
        path=given,
        paths=tuple(sorted(files)),
        kind=model.kind,
        metadata=model.metadata,
        values=model.values,
        tensors=model.tensors,
        close=model.close,
    )


def _from_gguf(path: Path, file: Path) -> Source:
    model = gguf.open(file)
    return Source(
        path=path,
        paths=tuple(model.paths),
        kind="gguf",
        metadata=model.metadata,
        values=model.values,
        tensors=model.tensors,
        close=model.close,
    )


def refuse_overwrite(out: Path, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """UsageError if `out` is one of the files that are read, under whatever name or link.

    As everywhere, a str is text itself and a path object names a file.
    """
    for path in inputs:
        if path is None or isinstance(path, str):
            continue
        try:
            same = out.samefile(path)
        except OSError:
            continue  # one of them does not exist
        if same:
            raise UsageError(f"{out} is an input ({path}): name another output")


def paths_of(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files a model is made of; errors as for `open_source`."""
    source = open_source(path)
    source.close()
    return source.paths


def source_sha256(
    path: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None
) -> str:
    """The sha256 that identifies a model: of its file, or of the list of its files."""
    source = open_source(path)
    try:
        return source.sha256(on_progress)
    finally:
        source.close()
