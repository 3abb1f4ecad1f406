"""Write a Hugging Face folder so that it is whole or absent.

Everything goes to NAME.partial beside it, is flushed, and gets its name at the end. Sizes are known
before the first tensor is made, so headers are written first and tensors follow one at a time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trit.errors import DoesNotFitError, UsageError
from trit.files._whole import partial_of, sync

SHARD_BYTES = 4 << 30
_ITEM = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "I8": 1, "U8": 1}


@dataclass(frozen=True)
class Entry:
    """A tensor of the folder; dtype is the format's name for its type."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        count = 1
        for size in self.shape:
            count *= size
        return count * _ITEM[self.dtype]


class FolderWriter:
    """A folder in the making.

    with FolderWriter(path, entries, texts, copies, metadata) as writer:
        for entry in entries:
            writer.add(entry, data)
        writer.finish()

    `entries` in the order they will be added; `texts` file name -> text, `copies` files taken over
    as they are, `metadata` goes into the header of every file of weights. Left without `finish`,
    nothing remains.
    UsageError if the target is there and not an empty folder; DoesNotFitError if there is no room.
    """

    def __init__(
        self,
        path: Path,
        entries: Iterable[Entry],
        texts: Mapping[str, str],
        copies: Iterable[Path],
        metadata: Mapping[str, str],
    ) -> None:
        self.path = path
        self.partial = partial_of(path)
        self._shards = _shards(list(entries), SHARD_BYTES)
        self._metadata = dict(metadata)
        self._file: int | None = None
        self._todo = [(i, entry) for i, shard in enumerate(self._shards) for entry in shard]
        check_free(path)
        _check_room(path, sum(entry.nbytes for _, entry in self._todo))
        if self.partial.exists():  # left by a job that was killed
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True)
        for file in copies:
            shutil.copyfile(file, self.partial / file.name)
        for name, text in texts.items():
            (self.partial / name).write_text(text, encoding="utf-8")
        if len(self._shards) > 1:
            (self.partial / "model.safetensors.index.json").write_text(self._index(), "utf-8")
        self._open = -1

    def add(self, entry: Entry, data: NDArray[np.generic]) -> None:
        """The bytes of the next entry."""
        shard, expected = self._todo.pop(0)
        assert expected == entry, f"{entry.name}: {expected.name} is next"
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        assert len(raw) == entry.nbytes, f"{entry.name}: {len(raw)} bytes, not {entry.nbytes}"
        if shard != self._open:
            self._begin(shard)
        assert self._file is not None
        view = memoryview(raw.data)
        while view:
            view = view[os.write(self._file, view) :]

    def finish(self) -> None:
        """Flush everything and give the folder its name."""
        assert not self._todo, f"{len(self._todo)} tensors are missing"
        self._end()
        for file in self.partial.iterdir():
            sync(file)
        sync(self.partial)
        if self.path.exists():
            self.path.rmdir()  # empty, as was checked; not empty by now: an error, nothing lost
        self.partial.rename(self.path)
        sync(self.path.parent)

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        if self.partial.exists():
            shutil.rmtree(self.partial)

    def _begin(self, shard: int) -> None:
        self._end()
        header: dict[str, object] = {"__metadata__": {"format": "pt"} | self._metadata}
        at = 0
        for entry in self._shards[shard]:
            header[entry.name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [at, at + entry.nbytes],
            }
            at += entry.nbytes
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        path = self.partial / self._name(shard)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(self._file, len(raw).to_bytes(8, "little") + raw)
        self._open = shard

    def _end(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _name(self, shard: int) -> str:
        count = len(self._shards)
        if count == 1:
            return "model.safetensors"
        return f"model-{shard + 1:05d}-of-{count:05d}.safetensors"

    def _index(self) -> str:
        places = {
            entry.name: self._name(i) for i, shard in enumerate(self._shards) for entry in shard
        }
        total = sum(entry.nbytes for shard in self._shards for entry in shard)
        return json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)


def check_free(path: Path) -> None:
    """UsageError if something is there already, other than an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already: name a new folder, or remove it.")


def _check_room(path: Path, nbytes: int) -> None:
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < nbytes:
        raise DoesNotFitError(f"{path}: needs {nbytes:,} bytes, {free:,} are free on its disk.")


def _shards(entries: list[Entry], most: int) -> list[list[Entry]]:
    """Runs of entries of at most `most` bytes, or of one entry."""
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    return shards
