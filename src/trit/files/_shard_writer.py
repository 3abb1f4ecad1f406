"""Write a GGUF model as shards that are all there at the end, or none of them.

Every shard is a file in the making of its own, with its own journal (files/_writer.py). Once all
are whole and were read back, they get their names, the first one last: until then no reader finds a
model. A job killed in between finds the names it has given by their journals, and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

from trit.files._checksum import Progress
from trit.files._cutting import Part
from trit.files._journal import journal_of
from trit.files._tensor import Bytes, TensorInfo
from trit.files._values import Plain, Value
from trit.files._whole import partial_of
from trit.files._writer import Writer, check_space, is_there


class ShardWriter:
    """A model of several files in the making, with the face of a `Writer`.

    Errors as for Writer; UsageError also for a shard that is there already, whoever wrote it.
    """

    def __init__(
        self,
        parts: Sequence[Part[TensorInfo]],
        *,
        job: str,
        on_progress: Progress | None = None,
    ) -> None:
        self._on_progress = on_progress or (lambda done, total: None)
        self._done = [0] * len(parts)
        self._total = 2 * sum(info.nbytes for part in parts for info in part.tensors)
        self._writers: list[Writer] = []
        check_free(parts)
        partials = [partial_of(part.path) for part in parts]
        check_space(parts[0].path, sum(part.bytes for part in parts), partials)
        try:
            for number, part in enumerate(parts):
                self._writers.append(
                    Writer(
                        part.path, part.values, part.tensors, job=job,
                        on_progress=partial(self._advance, number), one_of_several=True,
                    )
                )  # fmt: skip
        except BaseException:
            for writer in self._writers:  # what has nothing in it yet is of no use
                writer.close() if writer.begun else writer.discard()
            raise
        self._places = {
            info.name: writer
            for part, writer in zip(parts, self._writers, strict=True)
            for info in part.tensors
        }

    @property
    def remaining(self) -> list[TensorInfo]:
        """The tensors still to be added, in the model's order."""
        return [info for writer in self._writers for info in writer.remaining]

    def add(self, name: str, data: Bytes | Iterable[Bytes]) -> None:
        """Write the bytes of one tensor, as Writer.add."""
        self._places[name].add(name, data)

    def read(self, name: str) -> Bytes | None:
        """The bytes of a tensor that was added; None if it was not."""
        return self._places[name].read(name)

    def finish(self, values: Mapping[str, Plain | Value] | None = None) -> None:
        """Verify all shards, then give all their names; `values` as for Writer.finish."""
        for number, writer in enumerate(self._writers):
            writer.seal(values if number == 0 else None)
        for writer in self._writers:
            if writer.path.exists():  # somebody else has written one meanwhile
                raise is_there(writer.path)
        published: list[Writer] = []
        try:
            for writer in reversed(self._writers):
                writer.publish()
                published.append(writer)
        except BaseException:
            for writer in published:
                with suppress(OSError):  # its journal tells the next job what it is
                    writer.path.replace(writer.partial)
            raise
        for writer in self._writers:
            writer.release()

    def discard(self) -> None:
        """Remove what a job that cannot succeed has written."""
        for writer in self._writers:
            writer.discard()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.close()

    def _advance(self, number: int, done: int, _: int) -> None:
        self._done[number] = done
        self._on_progress(sum(self._done), self._total)


def check_free(parts: Sequence[Part[TensorInfo]]) -> None:
    """UsageError for a shard that is there and was left by no job that can go on."""
    for part in parts:
        if part.path.exists() and not journal_of(part.path).exists():
            raise is_there(part.path)
