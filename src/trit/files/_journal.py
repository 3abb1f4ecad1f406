"""The diary of a file being written: which tensors are done, and the checksum of each.

One JSON object a line, beside the partial file. The first line says what job it belongs to; a diary
of another job is of no use and is thrown away. Each further line names a finished tensor. A line is
written after the tensor's bytes and believed only once those bytes were read again, so that neither
has to reach the disk in order, and a line torn by a crash costs one tensor.
"""

import json
from pathlib import Path
from typing import TextIO

from trit.files._whole import partial_of, whole

_VERSION = 1


def journal_of(path: Path) -> Path:
    """Where the diary of a file is, while that is written."""
    partial = partial_of(path)
    return partial.with_name(partial.name + ".journal")


class Journal:
    """Checksums of finished tensors, in a file of their own."""

    def __init__(self, path: Path, job: dict[str, str | int]) -> None:
        self.path = path
        self._job = {"journal": _VERSION, **job}
        self._file: TextIO | None = None
        self.checksums: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """Tensor name -> sha256 as last noted; empty if there is no journal of this job."""
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        entries = [_parse(line) for line in lines]
        if not entries or entries[0] != self._job:
            return {}
        return {
            str(entry["tensor"]): str(entry["sha256"])
            for entry in entries[1:]
            if entry.keys() == {"tensor", "sha256"}
        }

    def start(self, checksums: dict[str, str]) -> None:
        """Begin the file anew, with what is known already; no moment is without a whole journal."""
        self.checksums = dict(checksums)
        entries = [{"tensor": name, "sha256": each} for name, each in checksums.items()]
        with whole(self.path) as file:
            file.writelines((json.dumps(each) + "\n").encode() for each in (self._job, *entries))
        self._file = self.path.open("a", encoding="utf-8")

    def note(self, name: str, checksum: str) -> None:
        """Write down that a tensor is finished."""
        assert self._file is not None, "the journal was not started"
        self._file.write(json.dumps({"tensor": name, "sha256": checksum}) + "\n")
        self._file.flush()
        self.checksums[name] = checksum

    def close(self, *, remove: bool) -> None:
        """Close the file; a journal that has served its purpose is removed."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if remove:
            self.path.unlink(missing_ok=True)


def job_of(path: Path) -> str | None:
    """The job whose diary lies there, as its writer named it; None for none that can be read."""
    try:
        with path.open(encoding="utf-8") as file:
            job = _parse(file.readline()).get("job")
    except (OSError, UnicodeDecodeError):
        return None
    return job if isinstance(job, str) else None


def _parse(line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
