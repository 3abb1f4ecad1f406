"""A study in one SQLite file: everything that is needed to audit it, and to go on with it.

Rows are only ever added; triggers refuse to change one. What is undone has a row that says so. One
connection behind a lock serves all threads of a process; several processes may write at a time, one
of them making answers, another taking votes.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from trit.compare import _file
from trit.compare.plan import Key
from trit.compare.study import Answer, Arm, Ballot, Draw, Item, ModelRow, Settings
from trit.errors import InvalidFileError, UsageError
from trit.files.source import trit_version


class Store:
    """An open study; a context manager. `path` is its file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        study = self._one("SELECT settings, secret FROM study")
        self.settings = Settings.from_json(study["settings"])
        self.secret = str(study["secret"])  # only who has the file can foretell a side
        self.models = [ModelRow(**row) for row in self._rows("SELECT * FROM model ORDER BY id")]

    @classmethod
    def create(cls, path: Path, settings: Settings, models: Sequence[ModelRow]) -> Store:
        """A new study without prompts. UsageError if there is a file already."""
        if path.exists():
            raise UsageError(f"{path} is there already; name another -o, or go on with it.")
        connection = _file.connect(path)
        with _file.in_words(path):
            connection.executescript(f"BEGIN; {_file.schema()}")
            with connection:  # ends the transaction: a study is whole or empty
                connection.execute(
                    "INSERT INTO study VALUES (1, ?, ?, ?, ?)",
                    (trit_version(), settings.to_json(), time.time(), _file.fresh_secret()),
                )
                connection.executemany(
                    "INSERT INTO model VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(m.id, m.name, m.path, m.bytes, m.sha256, m.type, m.recipe) for m in models],
                )
            connection.execute("PRAGMA journal_mode = WAL")
        return cls(path, connection)

    @classmethod
    def open(cls, path: Path) -> Store:
        """InvalidFileError for what is no study."""
        if not path.is_file():
            raise InvalidFileError(path, "", "there is no such study; name the file of -o.")
        with ExitStack() as stack:
            connection = _file.connect(path)
            stack.callback(connection.close)
            _file.bring_up_to_date(path, connection)
            try:
                store = cls(path, connection)
            except (ValueError, TypeError, KeyError) as error:
                raise InvalidFileError(path, "", f"expected a study, got: {error}.") from None
            stack.pop_all()
            return store

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # --- prompts and answers

    def add_prompts(self, prompts: Sequence[str]) -> int:
        """Add those that are not there; how many. UsageError for one that a voter has asked."""
        before, own = self.prompts(), self.own_prompts()
        taken = next((n for n, text in before.items() if n in own and text in prompts), None)
        if taken is not None:
            raise UsageError(
                f"a voter has asked {before[taken]!r:.60} as a prompt of their own, which votes "
                "are cast on. Leave it out of the file."
            )
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO prompt (text) VALUES (?)", [(text,) for text in prompts]
            )
        return len(self.prompts()) - len(before)

    def prompts(self) -> dict[int, str]:
        """All of them by number, from 1 on, with those of voters' own."""
        return {row["id"]: row["text"] for row in self._rows("SELECT * FROM prompt ORDER BY id")}

    def own_prompts(self) -> dict[int, set[str]]:
        """The voters of each prompt that is one of voters' own, not of the study."""
        found: dict[int, set[str]] = {}
        for row in self._rows("SELECT prompt, voter FROM own_prompt"):
            found.setdefault(row["prompt"], set()).add(row["voter"])
        return found

    def asked(self, voter: str) -> list[int]:
        """The prompts that are this voter's own, the first one first."""
        rows = self._rows("SELECT prompt FROM own_prompt WHERE voter = ? ORDER BY rowid", voter)
        return [row["prompt"] for row in rows]

    def add_own_prompt(
        self, voter: str, number: int, text: str, asked_at: float, answers: Sequence[Answer]
    ) -> bool:
        """A voter's own prompt with all its answers, or nothing: whether the number was free, or
        the text's own already."""
        try:
            with self._writing() as connection:
                if number not in self.own_prompts():
                    connection.execute("INSERT INTO prompt VALUES (?, ?)", (number, text))
                elif self.prompts()[number] != text:
                    return False  # another voter was faster
                _insert_answers(connection, answers)
                connection.execute(
                    "INSERT INTO own_prompt VALUES (?, ?, ?)", (number, voter, asked_at)
                )
        except sqlite3.IntegrityError:
            return False
        return True

    def add_answers(self, answers: Sequence[Answer]) -> None:
        with self._writing() as connection:
            _insert_answers(connection, answers)

    def answers(self) -> dict[tuple[Draw, int], str]:
        """The texts by draw and prompt."""
        rows = self._rows("SELECT model, draw, prompt, text FROM answer")
        return {((row["model"], row["draw"]), row["prompt"]): row["text"] for row in rows}

    def made(self) -> set[tuple[Draw, int]]:
        """Which there are."""
        rows = self._rows("SELECT model, draw, prompt FROM answer")
        return {((row["model"], row["draw"]), row["prompt"]) for row in rows}

    def text(self, draw: Draw, prompt: int) -> str:
        """One of them."""
        row = self._one(
            "SELECT text FROM answer WHERE model = ? AND draw = ? AND prompt = ?", *draw, prompt
        )
        return str(row["text"])

    def answer_tokens(self, own: bool = False) -> dict[int, float]:
        """Mean tokens of an answer, by model; with those to voters' `own` prompts, or without."""
        rows = self._rows(
            "SELECT model, avg(tokens) AS mean FROM answer WHERE ? OR prompt NOT IN "
            "(SELECT prompt FROM own_prompt) GROUP BY model",
            own,
        )
        return {row["model"]: row["mean"] for row in rows}

    def wanted(self) -> list[tuple[Draw, int]]:
        """The draws and prompts of all answers that the study asks for."""
        own = self.own_prompts()
        prompts = [prompt for prompt in self.prompts() if prompt not in own]
        draws: list[tuple[Draw, int]] = [((m.id, 0), p) for m in self.models for p in prompts]
        return draws + [((0, 1), prompt) for prompt in filter(self.settings.catches, prompts)]

    def missing(self) -> list[tuple[Draw, int]]:
        """Which of these there are not."""
        made = self.made()
        return [wanted for wanted in self.wanted() if wanted not in made]

    def answered(self) -> list[int]:
        """The prompts of the study that all models have answered, by number."""
        missing, own = {prompt for _, prompt in self.missing()}, self.own_prompts()
        return [p for p in self.prompts() if p not in missing and p not in own]

    # --- what voters see and say

    def present(self, voter: str, arm: Arm, item: Item, again: int | None = None) -> str:
        """Note that an item is shown; its token."""
        token = secrets.token_urlsafe(16)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO presentation (token, voter, arm, prompt, first_model, first_draw, "
                "second_model, second_draw, again, shown_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (token, voter, arm, item.prompt, *item.first, *item.second, again, time.time()),
            )
        return token

    def open_presentation(self, voter: str, arm: Arm) -> tuple[str, Item] | None:
        """The last one that this voter has not voted on: its token, and what it shows."""
        row = self._first(
            "SELECT * FROM presentation WHERE voter = ? AND arm = ? AND id NOT IN "
            "(SELECT presentation FROM vote) ORDER BY id DESC LIMIT 1",
            voter, arm,
        )  # fmt: skip
        return None if row is None else (row["token"], _item(row))

    def add_vote(self, token: str, choice: str) -> bool:
        """Whether there was such a presentation and no vote on it."""
        with self._writing() as connection:
            now = time.time()
            made = connection.execute(
                "INSERT INTO vote (presentation, choice, seconds, voted_at) "
                "SELECT id, ?, max(0, ? - shown_at), ? FROM presentation "
                "WHERE token = ? AND id NOT IN (SELECT presentation FROM vote)",
                (choice, now, now, token),
            )
            return made.rowcount == 1

    def undo(self, voter: str, arm: Arm) -> tuple[int, Item] | None:
        """Take back the last vote that this voter was asked for: the number of its presentation,
        and what that showed. None where there is none."""
        with self._writing() as connection:
            row: sqlite3.Row | None = connection.execute(
                "SELECT p.*, v.id AS vote FROM vote v JOIN presentation p ON p.id = v.presentation "
                "WHERE p.voter = ? AND p.arm = ? AND v.choice <> 'same' AND v.id NOT IN "
                "(SELECT vote FROM undo) ORDER BY v.id DESC LIMIT 1",
                (voter, arm),
            ).fetchone()
            if row is not None:
                connection.execute("INSERT INTO undo VALUES (?, ?)", (row["vote"], time.time()))
        return None if row is None else (row["id"], _item(row))

    def add_belief(self, token: str, heavier: str) -> bool:
        """Whether there was such a presentation, voted on, and no belief about it."""
        with self._writing() as connection:
            made = connection.execute(
                "INSERT OR IGNORE INTO belief SELECT p.id, ?, ? FROM presentation p "
                "JOIN vote v ON v.presentation = p.id WHERE p.token = ? "
                "AND v.id NOT IN (SELECT vote FROM undo)",
                (heavier, time.time(), token),
            )
            return made.rowcount == 1

    def presented(self, voter: str, arm: Arm) -> set[int]:
        """The prompts that this voter has been shown answers to."""
        rows = self._rows(
            "SELECT DISTINCT prompt FROM presentation WHERE voter = ? AND arm = ?", voter, arm
        )
        return {row["prompt"] for row in rows}

    def seen(self, voter: str, arm: Arm) -> dict[Key, str]:
        """What this voter has voted on and not taken back, and the choice."""
        rows = self._standing("p.voter = ? AND p.arm = ?", voter, arm)
        return {_item(row).key: row["choice"] for row in rows}

    def votes(self, arm: Arm) -> dict[Key, int]:
        """How many votes stand, by prompt and answers."""
        counts: dict[Key, int] = {}
        for row in self._standing("p.arm = ?", arm):
            counts[_item(row).key] = counts.get(_item(row).key, 0) + 1
        return counts

    def ballots(self, arm: Arm) -> list[Ballot]:
        """All votes that stand, the oldest first."""
        return [_ballot(row) for row in self._standing("p.arm = ?", arm)]

    def undone(self) -> list[int]:
        """The prompts of the votes that were taken back."""
        rows = self._rows(
            "SELECT p.prompt FROM undo u JOIN vote v ON v.id = u.vote "
            "JOIN presentation p ON p.id = v.presentation"
        )
        return [row["prompt"] for row in rows]

    def add_look(self, votes: int, own: int = 0) -> list[tuple[int, int]]:
        """Note that results of so many votes are shown, on the study's prompts and on voters'
        `own`; the numbers of both at earlier looks."""
        rows = self._rows("SELECT votes, own FROM look ORDER BY id")
        before = [(row["votes"], row["own"]) for row in rows]
        if before[-1:] != [(votes, own)]:
            with self._writing() as connection:
                connection.execute(
                    "INSERT INTO look (votes, looked_at, own) VALUES (?, ?, ?)",
                    (votes, time.time(), own),
                )
        return before

    # --- the judge

    def add_judge(self, judge: ModelRow) -> int:
        """The judge's number, by its hash."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO judge (name, path, bytes, sha256, type) "
                "VALUES (?, ?, ?, ?, ?)",
                (judge.name, judge.path, judge.bytes, judge.sha256, judge.type),
            )
        return int(self._one("SELECT id FROM judge WHERE sha256 = ?", judge.sha256)["id"])

    def judges(self) -> dict[int, str]:
        """Names by number."""
        return {row["id"]: row["name"] for row in self._rows("SELECT id, name FROM judge")}

    def add_likelihoods(self, judge: int, rows: Sequence[tuple[int, int, float, int]]) -> None:
        """Rows of (model, prompt, nats, tokens)."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO likelihood VALUES (?, ?, ?, ?, ?)",
                [(judge, *row) for row in rows],
            )

    def likelihoods(self, judge: int) -> dict[tuple[int, int], tuple[float, int]]:
        """(nats, tokens) by (model, prompt)."""
        rows = self._rows("SELECT * FROM likelihood WHERE judge = ?", judge)
        return {(row["model"], row["prompt"]): (row["nats"], row["tokens"]) for row in rows}

    # --- SQLite

    def _standing(self, where: str, *values: object) -> list[sqlite3.Row]:
        return self._rows(
            "SELECT p.*, v.choice, v.seconds, b.heavier AS belief FROM vote v "
            "JOIN presentation p ON p.id = v.presentation "
            "LEFT JOIN belief b ON b.presentation = p.id "
            f"WHERE v.id NOT IN (SELECT vote FROM undo) AND {where} ORDER BY v.id",
            *values,
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _file.in_words(self.path), self._connection:
            yield self._connection

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, _file.in_words(self.path):
            return self._connection.execute(query, values).fetchall()

    def _first(self, query: str, *values: object) -> sqlite3.Row | None:
        return next(iter(self._rows(query, *values)), None)

    def _one(self, query: str, *values: object) -> sqlite3.Row:
        row = self._first(query, *values)
        if row is None:
            raise InvalidFileError(self.path, "", "the study is incomplete; begin it again.")
        return row


def _insert_answers(connection: sqlite3.Connection, answers: Sequence[Answer]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (*a.draw, a.prompt, a.text, a.tokens, a.finish_reason, a.seed, a.prompt_tokens,
             a.prompt_seconds, a.generation_seconds, a.isa, a.threads, trit_version(), time.time())
            for a in answers
        ],
    )  # fmt: skip


def _item(row: sqlite3.Row) -> Item:
    first = row["first_model"], row["first_draw"]
    return Item(row["prompt"], first, (row["second_model"], row["second_draw"]))


def _ballot(row: sqlite3.Row) -> Ballot:
    """By weight instead of by place."""
    first, second = row["first_model"], row["second_model"]
    names: dict[Any, str] = {"1": "heavier", "2": "lighter"}
    if (first, row["first_draw"]) > (second, row["second_draw"]):
        names = {"1": "lighter", "2": "heavier"}
    choice, belief = row["choice"], row["belief"]
    return Ballot(
        prompt=row["prompt"],
        voter=row["voter"],
        heavier=min(first, second),
        lighter=max(first, second),
        choice=names.get(choice, choice),
        first=choice == "1" if choice in names else None,
        believed=names.get(belief, belief),
        seconds=None if choice == "same" else row["seconds"],
    )
