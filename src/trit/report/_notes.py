"""What was measured already, kept beside a report: a killed one goes on, a longer one adds.

One file of JSON; a measurement stands under all that it depends on, and is made again when any of
that changes. The file is whole after each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trit.errors import InvalidFileError
from trit.files._whole import whole

FORMAT = 1
Result = dict[str, Any]


class Notes:
    """The file at `path`, or none: then nothing is kept. InvalidFileError for another's file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[str, Result] = {}
        if path is None or not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != FORMAT or not isinstance(found["measured"], dict):
                raise ValueError("another format")
        except (ValueError, KeyError, TypeError) as error:
            problem = f"expected measurements of trit report ({error}). Remove it to start again."
            raise InvalidFileError(path, "", problem) from None
        self._kept = found["measured"]

    def has(self, about: Mapping[str, Any]) -> bool:
        """Whether this was measured."""
        return _key(about) in self._kept

    def get(self, about: Mapping[str, Any], measure: Callable[[], Result]) -> Result:
        """What was measured under `about`, or is now."""
        key = _key(about)
        if key not in self._kept:
            self._kept[key] = {"about": dict(about), **measure()}
            self._write()
        return self._kept[key]

    def _write(self) -> None:
        if self._path is None:
            return
        notes = {"format": FORMAT, "measured": self._kept}
        with whole(self._path) as out:
            out.write(json.dumps(notes, ensure_ascii=False, allow_nan=False, indent=1).encode())


def _key(about: Mapping[str, Any]) -> str:
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fingerprint(path: Path) -> str:
    """Changes when a model does: of names, sizes and times of its files, not of their bytes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    rows = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((str(path.resolve()), rows)).encode()).hexdigest()[:24]
