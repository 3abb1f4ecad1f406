"""A conversation in one file: what was said, and what the model's cache holds of it.

    {"trit_chat": 2, "messages": […], …, "cache": {…}}     a line of JSON
    the pages of the cache as they lie in memory
    32 bytes                                                HMAC-SHA-256 of all before, by a key

With the pages a model goes on at once, where the text alone has to be read again. A file may come
from anywhere, and pages can say something else than the text beside them: they are believed only
with the code that this user's own key makes, and if model, type of cache, instruction set and core
are those that wrote them. Else there is a reason in words, and the text is as good as ever.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trit.engine import PAGE, build
from trit.errors import InvalidFileError, UnsupportedError
from trit.files._whole import whole
from trit.runtime.model import Model
from trit.runtime.scheduler import Kept

KEY, VERSION = "trit_chat", 2
_MOST_HEAD_BYTES = 64 << 20
_CODE_BYTES = 32
_SAMPLES, _SAMPLE_BYTES = 64, 4096  # of a model's file


class CacheMismatchError(UnsupportedError):
    """Why the cache in a session cannot be used; its text can."""


def write(
    path: Path, head: Mapping[str, Any], model: Model, tokens: Sequence[int], key: bytes
) -> int:
    """Write a session, whole or not at all, for this user's eyes; how many positions of `tokens`
    the cache held, which the file now holds, too. OSError if it cannot be written."""
    with whole(path, 0o600) as file:

        def put(kept: Kept | None) -> None:
            cache = None if kept is None else _described(model, tokens, kept)
            line = json.dumps({KEY: VERSION, **head, "cache": cache}).encode() + b"\n"
            code = hmac.new(key, digestmod="sha256")
            pages = () if kept is None else kept.pages
            parts: Iterator[bytes | memoryview] = chain([line], (page.data for page in pages))
            for part in parts:
                file.write(part)
                code.update(part)
            file.write(code.digest())

        count = model.scheduler.copy_out(tokens, put)
        if not count:
            put(None)
    return count


def read(path: Path) -> dict[str, Any]:
    """The head of a session, whose parts are the caller's to check; InvalidFileError if it is
    none, OSError if it cannot be read."""
    with path.open("rb") as file:
        return _head(path, file.readline(_MOST_HEAD_BYTES))


def restore(path: Path, model: Model, key: bytes) -> int:
    """Put a session's cache back into the model's; how many positions, 0 if it has none.

    CacheMismatchError for one that is not of this model, machine or user, or is damaged.
    """
    with path.open("rb") as file:
        line = file.readline(_MOST_HEAD_BYTES)
        cache = _head(path, line).get("cache")
        if cache is None:
            return 0
        tokens, length, first = _checked(cache, model)
        counts = [-(-length // PAGE) - begin for begin in first]
        sizes = [
            size for size, count in zip(model.engine.page_bytes(), counts, strict=True)
            for _ in range(count)
        ]  # fmt: skip
        if os.fstat(file.fileno()).st_size != len(line) + sum(sizes) + _CODE_BYTES or not sizes:
            raise CacheMismatchError("the file is cut short, or has more than it should")
        pages = _believed(file, line, sizes, key)
        model.scheduler.copy_in(tokens, Kept(length, first, pages))
    return length


def _believed(
    file: BinaryIO, line: bytes, sizes: Sequence[int], key: bytes
) -> Iterator[NDArray[np.uint8]]:
    """The pages; the last one comes only if the code behind it is right."""
    code = hmac.new(key, line, "sha256")
    for number, size in enumerate(sizes, 1):
        page = np.empty(size, np.uint8)
        if file.readinto(page.data) != size:  # type: ignore[attr-defined]  # a BufferedReader
            raise CacheMismatchError("the file is cut short")
        code.update(page.data)
        if number == len(sizes) and not hmac.compare_digest(code.digest(), file.read(_CODE_BYTES)):
            raise CacheMismatchError(
                "it was written by another user or on another machine, or it is damaged"
            )
        yield page


def _described(model: Model, tokens: Sequence[int], kept: Kept) -> dict[str, Any]:
    return {
        **_identity(model),
        "tokens": list(tokens[: kept.length]),
        "first": list(kept.first),
    }


def _identity(model: Model) -> dict[str, Any]:
    """What has to be the same for pages to mean the same, bit for bit."""
    return {
        "model": fingerprint(model),
        "type": model.engine.cache_type,
        "instructions": model.engine.isa,
        "core": build(),
        "pages": list(model.engine.page_bytes()),
    }


def _checked(cache: Any, model: Model) -> tuple[list[int], int, list[int]]:
    """Tokens, their number, and the first pages of a head's cache; CacheMismatchError."""
    if not isinstance(cache, dict):
        raise CacheMismatchError("its description is damaged")
    for name, own in _identity(model).items():
        if cache.get(name) != own:
            raise CacheMismatchError(_WHY[name].format(cache.get(name), own))
    tokens = _numbers(cache.get("tokens"), model.plan.vocab_size)
    first = _numbers(cache.get("first"), 1 << 40)
    if len(tokens) > model.ctx:
        raise CacheMismatchError(f"it has {len(tokens)} tokens, the context only {model.ctx}")
    most = len(tokens) // PAGE
    if len(first) != len(model.engine.page_bytes()) or not tokens or max(first) > most:
        raise CacheMismatchError("its description is damaged")
    return tokens, len(tokens), first


_WHY = {
    "model": "it is of another model file",
    "type": "it is of --cache-type {}, here it is {}",
    "instructions": "it was computed with {}, here it is {}, which rounds otherwise",
    "core": "another build of trit wrote it, which may round otherwise",
    "pages": "it was written for a context of another size",
}


def _numbers(given: Any, below: int) -> list[int]:
    if isinstance(given, list) and all(type(n) is int and 0 <= n < below for n in given):
        return given
    raise CacheMismatchError("its description is damaged")


def _head(path: Path, line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or head.get(KEY) != VERSION:
        problem = f"expected a session of trit run (a line of JSON with '{KEY}': {VERSION})."
        raise InvalidFileError(path, "", problem)
    return head


def fingerprint(model: Model) -> str:
    """A name of a model's file: its tensors, its size and time, and samples of its bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.tensors.items()):
        found.update(f"{name} {tensor.format.name} {tuple(tensor.shape)}\n".encode())
    path = Path(model.path)
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        if part.is_file():
            status = part.stat()
            found.update(f"{part.name} {status.st_size} {status.st_mtime_ns}\n".encode())
            with part.open("rb") as file:
                for at in range(_SAMPLES):
                    file.seek(at * status.st_size // _SAMPLES)
                    found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()[:32]
