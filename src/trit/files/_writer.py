"""Write a GGUF file so that it is whole or absent, and so that an interrupted job can go on.

The bytes go to NAME.partial in the same folder, checksums to NAME.partial.journal. The header is
written last: until then the partial file begins with zeros and no reader takes it for a model. At
the end it is flushed, read back and compared, and renamed over the target; then the folder is
flushed.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from trit.errors import DoesNotFitError, TritError, UsageError
from trit.files import _mapping
from trit.files._checksum import Progress, sha256_at
from trit.files._encode import draw
from trit.files._header import parse
from trit.files._journal import Journal, journal_of
from trit.files._layout import place
from trit.files._tensor import Bytes, Tensor, TensorInfo
from trit.files._values import Plain, Value
from trit.files._whole import partial_of, sync

_PIECE_BYTES = 4 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Writer:
    """A GGUF file in the making.

    with Writer(path, metadata, infos, job=fingerprint) as writer:
        for info in writer.remaining:
            writer.add(info.name, make_bytes(info))
        writer.finish()

    Everything but the tensors' bytes is known before the first is made. `job` names all that the
    bytes depend on (source, options, version): a partial file left by the same job is taken up
    again, its finished tensors checked against their checksums and kept. Without `job` nothing is
    kept and a failure leaves no file. Left without `finish`, the target stays as it was.

    Raises UsageError if the target is open for reading or cannot be a file, or another job is
    writing it; DoesNotFitError if there is no room, before anything is written. `on_progress(done,
    total)` counts every byte twice: once written, once read back.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Plain | Value],
        tensors: Sequence[TensorInfo],
        *,
        job: str | None = None,
        on_progress: Progress | None = None,
        one_of_several: bool = False,
    ) -> None:
        """`one_of_several`: a shard, to be published with the others (files/_shard_writer.py)."""
        self.path = Path(path)
        self.partial = partial_of(self.path)
        self._metadata = dict(metadata)
        self._blueprint = draw(metadata, tensors)
        self._keep = job is not None
        self._on_progress = on_progress or (lambda done, total: None)
        self._done_bytes = 0
        self._fd = -1
        check_target(self.path)
        header = hashlib.sha256(self._blueprint.header).hexdigest()
        self._journal = Journal(
            journal_of(self.path),
            {"job": job or "", "header": header, "bytes": self._blueprint.size},
        )
        with _explained(self.path):
            if one_of_several:
                self._take_back()
            check_space(self.path, self._blueprint.size, [self.partial])
            self._fd = _open_locked(self.partial)
            try:
                self._begin()
            except BaseException:
                self.close()
                raise

    @property
    def remaining(self) -> list[TensorInfo]:
        """The tensors still to be added, in the file's order."""
        done = self._journal.checksums
        return [info for name, info in self._blueprint.infos.items() if name not in done]

    @property
    def begun(self) -> bool:
        """Whether any tensor is finished."""
        return bool(self._journal.checksums)

    def add(self, name: str, data: Bytes | Iterable[Bytes]) -> None:
        """Write the bytes of one tensor: a uint8 array of any shape, or such arrays in order."""
        info, start = self._blueprint.infos[name], self._blueprint.offsets[name]
        assert name not in self._journal.checksums, f"{name} was added before"
        digest = hashlib.sha256()
        at = start
        with _explained(self.path):
            for piece in _pieces(data):
                assert at + len(piece) <= start + info.nbytes, (
                    f"{name}: more than {info.nbytes} bytes"
                )
                digest.update(piece)
                _write_all(self._fd, piece, at)
                at += len(piece)
                self._advance(len(piece))
            assert at == start + info.nbytes, f"{name}: {at - start} bytes, not {info.nbytes}"
            self._journal.note(name, digest.hexdigest())

    def holds(self, name: str) -> bool:
        """Whether a tensor was added, in this job or before."""
        return name in self._journal.checksums

    def read(self, name: str) -> Bytes | None:
        """The bytes of a tensor that was added, in this job or before; None if it was not."""
        if not self.holds(name):
            return None
        info, at = self._blueprint.infos[name], self._blueprint.offsets[name]
        data = np.empty(info.nbytes, np.uint8)
        with _explained(self.path):
            view = data.data
            while view:
                count = os.preadv(self._fd, [view], at)
                assert count > 0, f"{name}: the file is shorter than it was"
                view, at = view[count:], at + count
        return data

    def sync(self) -> None:
        """Have what was added on the disk: what is kept beside the file relies on it."""
        with _explained(self.path):
            os.fsync(self._fd)
            sync(self._journal.path)

    def finish(self, values: Mapping[str, Plain | Value] | None = None) -> None:
        """Flush, write the header, verify by reading back, rename, flush the folder.

        `values` takes the place of some of the metadata, in as many bytes: what is only known now.
        """
        self.seal(values)
        self.publish()
        self.release()

    def seal(self, values: Mapping[str, Plain | Value] | None = None) -> None:
        """What `finish` does before the rename."""
        assert not self.remaining, f"{len(self.remaining)} tensors were never added"
        if values:
            final = draw(self._metadata | dict(values), list(self._blueprint.infos.values()))
            assert final.offsets == self._blueprint.offsets, "the new values take other room"
            self._blueprint = final
        with _explained(self.path):
            os.fsync(self._fd)
            _write_all(self._fd, memoryview(self._blueprint.header), 0)
            os.fsync(self._fd)
            self._verify()

    def publish(self) -> None:
        """Give the sealed file its name; its journal stays until `release`."""
        with _explained(self.path):
            check_target(self.path)
            self.partial.replace(self.path)
            sync(self.path.parent)  # the new name lasts through a crash

    def release(self) -> None:
        """Let go of the published file, and remove its journal."""
        self._keep = False
        self._release()

    def discard(self) -> None:
        """Remove what a job that cannot succeed has written."""
        self._keep = False
        self.close()

    def close(self) -> None:
        """Let go of the files; what an unfinished `job` has written stays for its resumption."""
        if self._fd < 0:
            return
        if not self._keep:
            self.partial.unlink(missing_ok=True)
        self._release()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _release(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._journal.close(remove=not self._keep)

    def _advance(self, count: int) -> None:
        self._done_bytes += count
        self._on_progress(self._done_bytes, 2 * self._blueprint.data_bytes)

    def _take_back(self) -> None:
        """A shard published by the same job, killed before the last one was, is partial again.

        UsageError for a file of any other origin.
        """
        if not self.path.exists():
            return
        if self.partial.exists() or not self._journal.read():
            raise is_there(self.path)
        self.path.replace(self.partial)

    def _begin(self) -> None:
        """Take up what the same job left, or start with an empty file; reserve all the space."""
        noted = self._journal.read() if self._keep else {}
        kept = {}
        # What fails before there is anything leaves nothing; what was left before is not lost.
        named, self._keep = self._keep, bool(noted)
        for name, checksum in noted.items():
            info = self._blueprint.infos.get(name)
            if info is None:
                continue
            if sha256_at(self._fd, self._blueprint.offsets[name], info.nbytes) == checksum:
                kept[name] = checksum
                self._advance(info.nbytes)
        if not kept:
            os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._blueprint.size)
        _reserve(self._fd, self._blueprint.size)
        # A job stopped while finishing has left a header: no reader may take it for a model
        # meanwhile.
        _write_all(self._fd, memoryview(bytes(len(self._blueprint.header))), 0)
        self._journal.start(kept)
        self._keep = named

    def _verify(self) -> None:
        """Read the file as any reader would, past the page cache where the system allows it."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        header, infos = self._blueprint.header, self._blueprint.infos
        self._compare("the header", 0, len(header), hashlib.sha256(header).hexdigest())
        mapping = _mapping.Mapping(self.partial)
        try:
            found = place(mapping, parse(mapping))
        finally:
            mapping.close()
        same = [(each.name, each.shape, each.format) for each in found.values()]
        assert same == [(each.name, each.shape, each.format) for each in infos.values()]
        for name, info in infos.items():
            checksum = self._journal.checksums[name]
            self._compare(f"tensor {name!r}", self._blueprint.offsets[name], info.nbytes, checksum)
            self._advance(info.nbytes)

    def _compare(self, what: str, start: int, count: int, checksum: str) -> None:
        if sha256_at(self._fd, start, count) != checksum:
            self._keep = False
            raise TritError(
                f"{self.path}: {what} was read back other than it was written.\n"
                "The disk or the memory is at fault; nothing was kept."
            )


def write(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Plain | Value],
    tensors: Iterable[Tensor],
    on_progress: Progress | None = None,
) -> None:
    """Write a GGUF file from its keys and tensors; it is whole or absent. Errors as for Writer."""
    listed = list(tensors)
    with Writer(path, metadata, listed, on_progress=on_progress) as writer:
        for tensor in listed:
            writer.add(tensor.name, tensor.data)
        writer.finish()


def is_there(path: Path) -> UsageError:
    """That a shard would take the place of a file."""
    return UsageError(f"{path} is there already: name another output, or move it.")


def check_space(path: Path, count: int, partials: Sequence[Path]) -> None:
    """Refuse before the start what could not be finished; a partial file's space is free."""
    had = sum(partial.stat().st_blocks * 512 for partial in partials if partial.exists())
    free = shutil.disk_usage(path.parent).free + had
    if count > free:
        raise DoesNotFitError(
            f"{path}: writing it needs {count:,} bytes; "
            f"{path.parent.resolve()} has {free:,} free.\n"
            "Free some space, or write to another disk."
        )


def check_target(path: Path) -> None:
    """UsageError for a path where no file can be written, or that is open for reading."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the file to write")
    if path.exists() and not path.is_file():  # the rename would destroy a device such as /dev/null
        raise UsageError(f"{path} is no regular file: name the file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    for each in (path, partial_of(path)):
        if _mapping.is_mapped(each):
            raise UsageError(f"{each} is the input: write to another file")


def _open_locked(partial: Path) -> int:
    """Open the partial file for this process alone, and make sure the name still means it."""
    import fcntl  # here, since reading must work on systems without it

    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, the job that held the lock may have renamed it to its target.
        if not os.path.samestat(os.fstat(fd), partial.stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        os.close(fd)
        raise UsageError(f"{partial} is being written by another job: wait for it") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _reserve(fd: int, count: int) -> None:
    """Have the file system set the space aside: a full disk shows now and not hours later."""
    if not hasattr(os, "posix_fallocate") or count == 0:
        return
    try:
        os.posix_fallocate(fd, 0, count)
    except OSError as error:
        if error.errno in _FULL:
            raise
        # Not every file system can; it will then be found out while writing.


def _pieces(data: Bytes | Iterable[Bytes]) -> Iterator[memoryview]:
    for array in (data,) if isinstance(data, np.ndarray) else data:
        flat = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(flat), _PIECE_BYTES):
            yield flat[start : start + _PIECE_BYTES]


def _write_all(fd: int, piece: memoryview, at: int) -> None:
    while piece:
        written = os.pwrite(fd, piece, at)
        piece, at = piece[written:], at + written


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system says about the disk into errors of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DoesNotFitError(
                f"{path}: no room left to write it ({error.strerror}).\n"
                "Free some space, or write to another disk."
            ) from error
        raise TritError(f"{path}: cannot be written: {error.strerror}") from error
