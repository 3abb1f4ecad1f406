"""A model cut into several GGUF files, and put together again.

    split("model.gguf", "model", max_bytes=2_000_000_000)  # model-00001-of-00003.gguf …
    merge("model-00001-of-00003.gguf", "model.gguf")

Tensors keep their order and their bytes. The first shard has all keys, as other tools write it and
expect it; a model that was split and merged is the same file again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trit.errors import UsageError
from trit.files import gguf
from trit.files._cutting import SPLIT_KEYS, Part, cut
from trit.files.gguf import GGUF, Tensor, Value
from trit.files.source import refuse_overwrite

PathLike = str | os.PathLike[str]
Values = dict[str, Value]
Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all


@dataclass(frozen=True)
class Shard:
    """One file that was written, or would be; `bytes` is its whole size."""

    path: Path
    tensors: int
    bytes: int


def split(
    src: PathLike,
    prefix: PathLike,
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> list[Shard]:
    """Cut a GGUF into PREFIX-00001-of-0000N.gguf, none above `max_bytes` or `max_tensors`.

    A tensor is never cut: one that is larger than `max_bytes` is refused. Either all shards are
    there at the end or, after an error, none of them.
    Errors: UsageError (no limit or one too small, a shard that is there already), InvalidFileError,
    DoesNotFitError (disk).
    """
    with gguf.open(src) as model:
        tensors = list(model.tensors.values())
        parts = cut(Path(prefix), _own_values(model), tensors, max_bytes, max_tensors)
        shards = [Shard(part.path, len(part.tensors), part.bytes) for part in parts]
        if dry_run:
            return shards
        for shard in shards:
            if shard.path.exists():
                raise UsageError(f"{shard.path} is there already: name another prefix, or move it")
        _write_all(parts, on_progress)
        return shards


def merge(
    src: PathLike, out: PathLike, *, dry_run: bool = False, on_progress: Progress | None = None
) -> Shard:
    """Write the model that `src` is a shard of as one GGUF file, which is whole or absent.

    Errors: UsageError (`out` is a shard of the source), InvalidFileError (a shard is missing or
    damaged), DoesNotFitError (disk).
    """
    with gguf.open(src) as model:
        refuse_overwrite(Path(out), tuple(model.paths))
        whole = Part(Path(out), _own_values(model), list(model.tensors.values()))
        if not dry_run:
            _write_all([whole], on_progress)
        return Shard(whole.path, len(whole.tensors), whole.bytes)


def _own_values(model: GGUF) -> Values:
    """The keys but for those that describe shards."""
    return {key: value for key, value in model.values.items() if key not in SPLIT_KEYS}


def _write_all(parts: Sequence[Part[Tensor]], on_progress: Progress | None) -> None:
    """Write files that are only of use together: all of them, or none."""
    report = on_progress or (lambda what, done, total: None)
    sizes = [sum(tensor.nbytes for tensor in part.tensors) for part in parts]
    written: list[Path] = []
    before = 0

    def advance(start: int, done: int, _: int) -> None:
        report("writing", start + done, 2 * sum(sizes))

    try:
        for part, size in zip(parts, sizes, strict=True):
            gguf.write(part.path, part.values, part.tensors, partial(advance, before))
            written.append(part.path)
            before += 2 * size
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
