"""Where sessions are kept and what is in them, beside the cache (runtime/sessions.py).

A name is a file of the user's state folder ($XDG_STATE_HOME/trit/sessions); what has a dot or a
slash is a path. A path that ends with .json is the conversation alone, without the cache, as JSON:
{"trit_chat": 1, "model": name, "messages": [{"role", "content"}]}.
"""

import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trit.cli.chat.settings import Asked
from trit.errors import InvalidFileError, TritError, UsageError
from trit.files._whole import whole
from trit.runtime import sessions
from trit.runtime.model import Model

ENDING = ".session"
TEXT_VERSION = 1
_MOST_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ROLES = ("system", "user", "assistant")
_KEY_BYTES = 32
# Settings that go into a session, and what they are in JSON; the others are of one run.
_KEPT: dict[str, type | tuple[type, ...]] = {
    "max_tokens": int, "top_k": int, "penalty_last_n": int, "seed": int, "stop": list,
    "temperature": (int, float), "top_p": (int, float), "min_p": (int, float),
    "repeat_penalty": (int, float), "presence_penalty": (int, float),
    "frequency_penalty": (int, float), "schema": dict, "think": str,
}  # fmt: skip
Message = dict[str, str]


@dataclass(frozen=True)
class Opened:
    """What a session's text says; `has_cache`: there may be a cache behind it."""

    path: Path
    messages: list[Message]
    system: str | None
    settings: dict[str, Any]
    model: str
    has_cache: bool


def state_folder() -> Path:
    """The user's own, made for their eyes alone. UsageError if it cannot be made."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(home) / "trit"
    try:
        (folder / "sessions").mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise UsageError(
            f"{folder}: {error.strerror}. Let XDG_STATE_HOME name a folder for sessions."
        ) from None
    return folder


def named() -> list[str]:
    """The names of saved sessions, the last written first."""
    files = (state_folder() / "sessions").glob(f"*{ENDING}")
    ordered = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.name.removesuffix(ENDING) for path in ordered]


def located(given: str) -> Path:
    """The file of a name or path."""
    if not _NAME.fullmatch(given):
        return Path(given).expanduser()
    return state_folder() / "sessions" / (given + ENDING)


def save(path: Path, model: Model, asked: Asked, messages: list[Message], ids: list[int]) -> int:
    """Write a session, whole or not at all; how many of `ids`, the conversation's, are in its
    cache. Only what is a session is replaced. OSError if it cannot be written."""
    if path.exists():
        open_session(path)
    if path.suffix == ".json":
        _save_text(path, model, asked, messages)
        return 0
    head = {
        "name": model.name,
        "messages": messages,
        "system": asked.system,
        "settings": {name: value for name, value in asdict(asked).items() if name in _KEPT},
    }
    return sessions.write(path, head, model, ids, _key())


def restore(opened: Opened, model: Model) -> int:
    """Put the cache of a session back; how many positions. A TritError says why not."""
    try:
        return sessions.restore(opened.path, model, _key()) if opened.has_cache else 0
    except OSError as error:
        raise UsageError(f"{opened.path}: {error.strerror}") from None


def open_session(path: Path) -> Opened:
    """The text of a session; InvalidFileError if it is none, UsageError if there is no file."""
    try:
        if path.suffix == ".json":
            head: dict[str, Any] = _text_head(path)
        else:
            head = sessions.read(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    messages = _messages(path, head.get("messages"))
    system, settings = head.get("system"), head.get("settings") or {}
    if messages and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
    if not isinstance(system, str | None) or not isinstance(settings, dict):
        raise InvalidFileError(path, "keys 'system' and 'settings'", "expected a text, an object.")
    name = str(head.get("name") or head.get("model") or "")
    return Opened(path, messages, system, settings, name, head.get("cache") is not None)


def with_settings(asked: Asked, opened: Opened) -> Asked:
    """`asked` with what a session says and the command line does not. InvalidFileError."""
    default = Asked()
    changes: dict[str, Any] = {}
    for name, kind in _KEPT.items():
        value = opened.settings.get(name)
        if value is None or getattr(asked, name) != getattr(default, name):
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidFileError(opened.path, f"setting '{name}'", f"got {value!r:.40}.")
        changes[name] = tuple(map(str, value)) if isinstance(value, list) else value
    system = opened.system if asked.system is None else asked.system
    made = replace(asked, **changes, system=system)
    try:
        made.check()
    except TritError as error:
        raise InvalidFileError(opened.path, "key 'settings'", f"{error}") from None
    return made


def _save_text(path: Path, model: Model, asked: Asked, messages: list[Message]) -> None:
    system = [] if asked.system is None else [{"role": "system", "content": asked.system}]
    head = {
        sessions.KEY: TEXT_VERSION, "model": model.name, "messages": [*system, *messages]
    }  # fmt: skip
    with whole(path) as file:
        file.write(json.dumps(head, indent=2).encode())


def _text_head(path: Path) -> dict[str, Any]:
    problem = f"expected a conversation that /save wrote (JSON with '{sessions.KEY}')."
    if path.stat().st_size > _MOST_BYTES:
        raise InvalidFileError(path, "", f"more than {_MOST_BYTES >> 20} MiB.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InvalidFileError(path, "", problem) from None
    if not isinstance(found, dict) or found.get(sessions.KEY) != TEXT_VERSION:
        raise InvalidFileError(path, "", problem)
    return found


def _messages(path: Path, messages: Any) -> list[Message]:
    """Those of a file; they end with an answer, or there are none."""
    if not isinstance(messages, list):
        raise InvalidFileError(path, "key 'messages'", "expected a list.")
    for number, said in enumerate(messages):
        proper = isinstance(said, dict) and said.keys() == {"role", "content"}
        if not proper or said["role"] not in _ROLES or not isinstance(said["content"], str):
            raise InvalidFileError(path, f"message {number}", "expected a role and a content.")
    roles = [said["role"] for said in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise InvalidFileError(path, "key 'messages'", "expected user and assistant in turn.")
    return messages


def _key() -> bytes:
    """This user's own, which says of a cache that it was written here; made when first needed."""
    path = state_folder() / "session-key"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    except FileExistsError:
        pass
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise InvalidFileError(path, "", f"expected a key of {_KEY_BYTES} bytes; remove the file.")
    return key
