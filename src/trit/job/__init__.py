"""A conversion that is ready to run: everything is opened, checked and chosen, nothing is written.

Splitting the preparation from the work lets a caller say what it will cost before it starts.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from trit import formats
from trit.errors import DoesNotFitError, TritError
from trit.files import gguf
from trit.files._cutting import SPLIT_KEYS, Part, cut
from trit.files._encode import draw
from trit.files._journal import job_of, journal_of
from trit.files._shard_writer import check_free
from trit.files._whole import partial_of
from trit.files._writer import check_target
from trit.files.gguf import Plain, TensorInfo, Value
from trit.files.imatrix import Floats, Imatrix
from trit.files.source import Source, core_sha256, refuse_overwrite, trit_version
from trit.job.transcode import TERNARY, Bytes, Encoder, Transcoder
from trit.recipe import FLOATS, Choice
from trit.sizes import parse_size

if TYPE_CHECKING:  # it brings an engine
    from trit.job.feedback import Feedback

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all

DISK_BYTES_PER_SECOND = 1e9  # reading, checksums, writing, reading back: the order of magnitude


@dataclass(frozen=True)
class TensorResult:
    """One tensor of the new file; `fallback_from` is the format its rows were too odd for."""

    name: str
    shape: tuple[int, ...]
    source: str
    format: str
    fallback_from: str | None
    bytes: int


@dataclass(frozen=True)
class ConvertResult:
    """What was written, or would be. `bytes` is the size of the file, header and padding included.

    `source_bytes` counts the source's tensors, `tensor_bytes` the new file's, `weights` their
    weights; `weighted` how many tensors importance data was used for, `resumed` how many an
    interrupted job had finished. `seconds` is 0 for a dry run. `shards` are the files of a model
    that is written as several, of which `path` is the first and `bytes` the sum.
    """

    path: Path | None
    type: str
    tensors: tuple[TensorResult, ...]
    weights: int
    source_bytes: int
    tensor_bytes: int
    bytes: int
    warnings: tuple[str, ...]
    weighted: int = 0
    seconds: float = 0.0
    resumed: int = 0
    shards: tuple[Path, ...] = ()

    @property
    def bits_per_weight(self) -> float:
        """Of the tensors, scales and vectors included."""
        return 8 * self.tensor_bytes / self.weights

    @property
    def fallbacks(self) -> tuple[TensorResult, ...]:
        """The tensors that could not have the format of their mix."""
        return tuple(tensor for tensor in self.tensors if tensor.fallback_from)


class Job:
    """A source, the format chosen for each tensor, and the file to write (None: only to reckon).

    A context manager: it holds the source open.
    """

    def __init__(
        self,
        source: Source,
        out: str | os.PathLike[str] | None,
        type: str,
        choices: list[Choice],
        values: dict[str, Plain | Value],
        encode: Encoder,
        warnings: tuple[str, ...],
        *,
        importance: Imatrix | None = None,
        any_values: bool = False,
        threads: int | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        self.source = source
        self.out = None if out is None else Path(out)
        self.type = type
        self.choices = choices
        self.warnings = warnings
        self._values = values
        self._transcoder = Transcoder(source.path, encode, any_values, threads)
        self._infos = [
            TensorInfo(choice.name, source.tensors[choice.name].shape, formats.get(choice.format))
            for choice in choices
        ]
        self._importance = _match(importance, self._infos)
        self._feedback = feedback
        self._parts: list[Part[TensorInfo]] = []
        if self.out is not None:
            data = None if importance is None else importance.path
            text = None if feedback is None else feedback.text
            refuse_overwrite(self.out, (*source.paths, data, text))

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.source.close()

    def reserve(self, values: Mapping[str, Plain | Value]) -> None:
        """Room in the file for what is known once it is whole."""
        self._values |= values

    def shard(self, max_size: int | str) -> None:
        """Write shards of at most so many bytes, such as "4GB", in place of one file.

        They are those that `shards.split` makes of the file. UsageError for a size that cannot be
        kept, and for a shard that is there already.
        """
        most = parse_size(max_size, "--max-size") if isinstance(max_size, str) else max_size
        out = self.out or Path("model.gguf")
        prefix = out.with_name(out.name.removesuffix(".gguf"))
        own = {key: value for key, value in self._values.items() if key not in SPLIT_KEYS}
        self._parts = cut(prefix, own, self._infos, most)
        if self.out is not None:
            check_free(self._parts)

    def made(self) -> Iterator[tuple[TensorInfo, Iterator[Bytes]]]:
        """Each tensor and its bytes; nothing is written. In the file's order, but for those that
        feedback rounds, which come first, layer by layer."""
        fed: set[str] = set()
        if self._feedback is not None:
            infos = {info.name: info for info in self._infos}
            layer: dict[str, Bytes] = {}  # what the walk asks for once the layer is done
            for name, data in self._feedback.rounded(
                self.source, self._infos, self._transcoder, lambda info: layer.get(info.name),
                Path(tempfile.gettempdir()) / "made",
            ):  # fmt: skip
                if layer and _layer_of(name) != _layer_of(next(iter(layer))):
                    layer.clear()
                layer[name] = data
                fed.add(name)
                yield infos[name], iter((data,))
        for info in self._infos:
            if info.name not in fed:
                yield info, self._pieces(info)

    def header(self, values: Mapping[str, Plain | Value]) -> bytes:
        """The bytes before the tensors, with `values` in the place of those of the same keys."""
        return draw(self._values | dict(values), self._infos).header

    @property
    def replaces(self) -> bool:
        """Whether a file of this name exists and will be replaced at the end."""
        return self.out is not None and not self._parts and self.out.exists()

    @property
    def partial(self) -> Path:
        """Where an interrupted job leaves what is done; of shards the first."""
        return partial_of(self._first)

    @property
    def _first(self) -> Path:
        assert self.out is not None
        return self._parts[0].path if self._parts else self.out

    def result(self, seconds: float = 0.0, resumed: int = 0) -> ConvertResult:
        """What the file will be, to the byte; nothing is written."""
        tensors = tuple(
            TensorResult(
                info.name,
                info.shape,
                self.source.tensors[info.name].format.name,
                info.format.name,
                choice.fallback_from,
                info.nbytes,
            )
            for choice, info in zip(self.choices, self._infos, strict=True)
        )
        return ConvertResult(
            path=self.out if self.out is None or not self._parts else self._parts[0].path,
            type=self.type,
            tensors=tensors,
            weights=sum(info.rows * info.cols for info in self._infos),
            source_bytes=sum(self.source.tensors[info.name].nbytes for info in self._infos),
            tensor_bytes=sum(info.nbytes for info in self._infos),
            bytes=sum(part.bytes for part in self._parts) or draw(self._values, self._infos).size,
            warnings=self.warnings,
            weighted=len(self._importance),
            seconds=seconds,
            resumed=resumed,
            shards=() if self.out is None else tuple(part.path for part in self._parts),
        )

    def estimate_seconds(self) -> float:
        """About how long `run` will take: each pair of formats is tried on some rows."""
        pairs: dict[tuple[str, str], list[TensorInfo]] = {}
        for info in self._infos:
            key = (self.source.tensors[info.name].format.name, info.format.name)
            pairs.setdefault(key, []).append(info)
        seconds = 0.0
        for infos in pairs.values():
            sample = sorted(infos, key=lambda info: info.nbytes)[len(infos) // 2]
            rate = self._transcoder.seconds(self.source.tensors[sample.name], sample.format)
            seconds += rate * sum(i.nbytes for i in infos) / sample.nbytes
        moved = sum(self.source.tensors[i.name].nbytes + i.nbytes for i in self._infos)
        if self._feedback is not None:
            seconds += self._feedback.seconds(self.source, self._infos)
        return seconds + moved / DISK_BYTES_PER_SECOND

    def check_target(self) -> None:
        """UsageError for an output that cannot be a file; of shards `shard` has checked it."""
        if self.out is not None and not self._parts:
            check_target(self.out)

    @property
    def discards(self) -> bool:
        """Whether an unfinished file of another job lies in the way, whose work will be lost."""
        if self.out is None:
            return False
        left = job_of(journal_of(self._first))
        return left is not None and left != self._name()

    def check_ternary(self) -> None:
        """Look at the first rows bound for a ternary format: a wrong source shows at once."""
        for info in self._infos:
            if info.format.name in TERNARY:
                self._transcoder.check_first_rows(self.source.tensors[info.name], info.format)
                return

    def run(self, on_progress: Progress | None = None) -> ConvertResult:
        """Write the file; interrupted, it leaves `OUT.partial`, which the same job takes up again.

        `on_progress(what, done, total)` counts bytes. Errors as for `convert` and `quantize`; after
        one that trying again would not cure, nothing is left.
        """
        assert self.out is not None, "a job without an output can only be reckoned"
        begun = time.perf_counter()
        report = on_progress or (lambda what, done, total: None)
        stage = "checking what is there"

        def progress(done: int, total: int) -> None:
            if stage:
                report(stage, done, total)

        with self._writer(progress) as writer:
            todo = writer.remaining
            try:
                stage = ""  # feedback reports its own, training steps finer than tensors
                for name, data in self._fed(writer, report):
                    writer.add(name, data)
                stage = "writing"
                for info in writer.remaining:
                    writer.add(info.name, self._pieces(info))
                known = self._source_sha256(report)
                stage = "verifying"
                writer.finish(known)
            except TritError as error:
                if not isinstance(error, DoesNotFitError):
                    writer.discard()
                raise
        return self.result(time.perf_counter() - begun, len(self._infos) - len(todo))

    def _writer(self, progress: gguf.Progress) -> gguf.Writer | gguf.ShardWriter:
        if self._parts:
            return gguf.ShardWriter(self._parts, job=self._name(), on_progress=progress)
        assert self.out is not None
        return gguf.Writer(
            self.out, self._values, self._infos, job=self._name(), on_progress=progress
        )

    def _source_sha256(self, report: Progress) -> dict[str, Plain | Value]:
        """What the file says of its source; read last, so that a job that goes on reads it once."""
        if "trit.source.sha256" not in self._values:
            return {}
        digest = self.source.sha256(lambda done, of: report("reading the source", done, of))
        return {"trit.source.sha256": digest}

    def _fed(
        self, writer: gguf.Writer | gguf.ShardWriter, report: Progress
    ) -> Iterator[tuple[str, Bytes]]:
        """What feedback rounds and is not written yet, in the model's order."""
        if self._feedback is None:
            return
        yield from self._feedback.rounded(
            self.source, self._infos, self._transcoder,
            lambda info: writer.read(info.name), self.partial, report,
        )  # fmt: skip

    def _pieces(self, info: TensorInfo) -> Iterator[Bytes]:
        importance = self._importance.get(info.name)
        return self._transcoder.pieces(self.source.tensors[info.name], info.format, importance)

    def _name(self) -> str:
        """All that the bytes depend on beside the header: a partial file of another is not used."""
        program = [trit_version(), core_sha256()]
        depends = [program, self.source.fingerprint(), self._transcoder.any_values]
        if self._feedback is not None:
            depends.append(self._feedback.settings(self.source))
        return json.dumps(depends)


def _match(data: Imatrix | None, infos: list[TensorInfo]) -> dict[str, Floats]:
    """The importance data of each tensor that is rounded; a wrong size shows before the start."""
    if data is None:
        return {}
    found = {}
    for info in infos:
        if info.format.name not in FLOATS:
            importance = data.importance(info.name, info.shape)
            if importance is not None:
                found[info.name] = importance
    return found


def _layer_of(name: str) -> str:
    """'blk.3' of 'blk.3.ffn_up.weight'."""
    return ".".join(name.split(".")[:2])
