"""A model cut into several GGUF files, and put together again.

    split("model.gguf", "model", max_bytes=2_000_000_000)  # model-00001-of-00003.gguf …
    merge("model-00001-of-00003.gguf", "model.gguf")

Tensors keep their order and their bytes. The first shard has all keys, as other tools write it and
expect it; a model that was split and merged is the same file again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trit._source import refuse_overwrite
from trit.errors import UsageError
from trit.files import gguf
from trit.files._encode import draw
from trit.files._header import DEFAULT_ALIGNMENT
from trit.files._layout import aligned
from trit.files.gguf import GGUF, Tensor, Value, ValueType

PathLike = str | os.PathLike[str]
Values = dict[str, Value]
Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all

SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
MOST_SHARDS = 0xFFFF  # as `split.count` is stored


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
        parts = _parts(model, max_bytes, max_tensors)
        shards = [
            Shard(path, len(part), draw(values, part).size)
            for path, values, part in _files(model, Path(prefix), parts)
        ]
        if dry_run:
            return shards
        for shard in shards:
            if shard.path.exists():
                raise UsageError(f"{shard.path} is there already: name another prefix, or move it")
        _write_all(_files(model, Path(prefix), parts), sum(map(_size, parts)), on_progress)
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
        values, tensors = _own_values(model), list(model.tensors.values())
        if not dry_run:
            _write_all(iter([(Path(out), values, tensors)]), _size(tensors), on_progress)
        return Shard(Path(out), len(tensors), draw(values, tensors).size)


def _own_values(model: GGUF) -> Values:
    """The keys but for those that describe shards."""
    return {key: value for key, value in model.values.items() if key not in SPLIT_KEYS}


def _files(
    model: GGUF, prefix: Path, parts: Sequence[list[Tensor]]
) -> Iterator[tuple[Path, Values, list[Tensor]]]:
    """Path, keys and tensors of every shard."""
    count, tensors = len(parts), sum(map(len, parts))
    for number, part in enumerate(parts):
        path = prefix.with_name(f"{prefix.name}-{number + 1:05}-of-{count:05}.gguf")
        place = _place(number, count, tensors)
        yield path, (_own_values(model) | place if number == 0 else place), part


def _place(number: int, count: int, tensors: int) -> Values:
    return {
        "split.no": Value(ValueType.UINT16, number),
        "split.tensors.count": Value(ValueType.INT32, tensors),
        "split.count": Value(ValueType.UINT16, count),
    }


def _parts(model: GGUF, max_bytes: int | None, max_tensors: int | None) -> list[list[Tensor]]:
    """The tensors in order, cut where a shard would become too large."""
    if max_bytes is None and max_tensors is None:
        raise UsageError("no limit: expected max_bytes or max_tensors (--max-size, --max-tensors).")
    if max_tensors is not None and max_tensors < 1:
        raise UsageError(f"at most {max_tensors} tensors per shard: expected one or more")
    parts: list[list[Tensor]] = [[]]
    room = _Room(_own_values(model) | _place(0, 1, 0), model.alignment)
    for tensor in model.tensors.values():
        full = max_bytes is not None and room.size_with(tensor) > max_bytes
        if parts[-1] and (full or len(parts[-1]) == max_tensors):
            parts.append([])
            room = _Room(_place(0, 1, 0), DEFAULT_ALIGNMENT)
        if max_bytes is not None and room.size_with(tensor) > max_bytes:
            keys = " and the keys of the model" if len(parts) == 1 else ""
            raise UsageError(
                f"shards of {max_bytes:,} bytes are too small for tensor {tensor.name!r}{keys}: "
                f"that takes {room.size_with(tensor):,}. Allow larger ones."
            )
        room.add(tensor)
        parts[-1].append(tensor)
    if len(parts) > MOST_SHARDS:
        raise UsageError(f"{len(parts):,} shards: at most {MOST_SHARDS:,} are possible")
    return parts


class _Room:
    """How large a shard is that begins with these keys."""

    def __init__(self, values: Values, alignment: int) -> None:
        self._alignment = alignment
        self._empty = len(draw(values, []).header)
        self._records = self._data = 0

    def size_with(self, tensor: Tensor) -> int:
        """Its bytes if the tensor joins those that are in it."""
        header = self._empty + self._records + _record_bytes(tensor)
        data = self._data + aligned(tensor.nbytes, self._alignment)
        return aligned(header, self._alignment) + data

    def add(self, tensor: Tensor) -> None:
        self._records += _record_bytes(tensor)
        self._data += aligned(tensor.nbytes, self._alignment)


def _record_bytes(tensor: Tensor) -> int:
    return len(draw({}, [tensor]).header) - len(draw({}, []).header)


def _size(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _write_all(
    files: Iterator[tuple[Path, Values, list[Tensor]]], total: int, on_progress: Progress | None
) -> None:
    """Write files that are only of use together: all of them, or none."""
    report = on_progress or (lambda what, done, total: None)
    written: list[Path] = []
    before = 0

    def advance(start: int, done: int, _: int) -> None:
        report("writing", start + done, 2 * total)

    try:
        for path, values, tensors in files:
            gguf.write(path, values, tensors, partial(advance, before))
            written.append(path)
            before += 2 * _size(tensors)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
