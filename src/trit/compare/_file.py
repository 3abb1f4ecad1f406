"""The SQLite file of a study: opened, made, brought up to date; its refusals in words.

Format 1 knew no prompts of voters' own, and drew sides from the seed and the voter's name alone.
Such a file gets what is new when it is opened; nothing of what is in it changes.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trit.errors import InvalidFileError, TritError

_APPLICATION = 0x74726974  # "trit", SQLite's application_id
_FORMAT = 2
_TABLES = (
    "study", "model", "prompt", "own_prompt", "answer", "presentation", "vote", "undo", "belief",
    "look", "judge", "likelihood",
)  # fmt: skip
_WAIT_SECONDS = 30.0  # for another process that writes


def schema() -> str:
    """What makes an empty study."""
    stay = " ".join(trigger for table in _TABLES for trigger in _only_added(table))
    return (
        f"{_text()} {stay} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_FORMAT};"
    )


def bring_up_to_date(path: Path, connection: sqlite3.Connection) -> None:
    """Give a study of format 1 what came since. InvalidFileError for what is no study."""
    with in_words(path):
        if _found(connection) == [_APPLICATION, 1]:
            connection.execute("BEGIN IMMEDIATE")  # another process may be about to do the same
            with connection:
                if _found(connection) == [_APPLICATION, 1]:
                    for statement in _since_format_1():
                        connection.execute(statement)
        if _found(connection) != [_APPLICATION, _FORMAT]:
            problem = f"expected a study of 'trit compare', format {_FORMAT}; got another file."
            raise InvalidFileError(path, "", problem)


def fresh_secret() -> str:
    """For a new study; hexadecimal."""
    return secrets.token_hex(16)


def _found(connection: sqlite3.Connection) -> list[int]:
    return [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    ]


def _since_format_1() -> list[str]:
    return [
        "ALTER TABLE look ADD COLUMN own INTEGER NOT NULL DEFAULT 0",
        f"ALTER TABLE study ADD COLUMN secret TEXT NOT NULL DEFAULT '{fresh_secret()}'",
        _own_prompt(),
        *_only_added("own_prompt"),
        f"PRAGMA user_version = {_FORMAT}",
    ]


def _text() -> str:
    return Path(__file__).with_name("_schema.sql").read_text("utf-8")


def _own_prompt() -> str:
    """The statement that makes this table."""
    begin = "CREATE TABLE own_prompt"
    return begin + _text().partition(begin)[2].partition(";")[0] + ";"


def _only_added(table: str) -> list[str]:
    """Triggers that refuse to change or delete a row."""
    return [
        f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table}: rows are only added'); END;"
        for verb in ("UPDATE", "DELETE")
    ]


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """SQLite's refusals: a disk that is full, a folder that may not be written, a damaged file."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # ours
    except sqlite3.OperationalError as error:
        raise TritError(f"{path}: {error}. Make room, or name another place: -o FILE.") from None
    except sqlite3.DatabaseError as error:
        raise InvalidFileError(path, "", f"expected a study, got: {error}.") from None


def connect(path: Path) -> sqlite3.Connection:
    with in_words(path):
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
    connection.row_factory = sqlite3.Row
    return connection
