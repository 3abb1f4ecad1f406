"""/compare/prompts: prompts of a voter's own over HTTP, and that nothing tells of a model."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import talking_model
import trit
from server import live
from trit.compare import Asking, Store, Voting
from trit.compare import Settings as StudySettings
from trit.compare.study import Answer
from trit.errors import DoesNotFitError, UsageError
from trit.server import _asking
from trit.server._queue import Queue
from trit.server.app import create_study_app
from trit.server.settings import Settings

ANN, BOB = "a-voter-ann", "a-voter-bob"
NAMES = re.compile(r"heavy-f16|light-q2|\.gguf|/models/|seconds|tokens")


@dataclass
class Site:
    """A served study, whose models are real, and small."""

    address: str
    store: Store
    folder: Path

    def ask(self, prompt: str, voter: str = ANN, **headers: str) -> live.Answer:
        body = {"voter": voter, "prompt": prompt}
        return live.ask(self.address, "/compare/prompts", body, headers=headers)

    def next(self, voter: str = ANN) -> Any:
        return live.ask(self.address, "/compare/next", {"voter": voter}).json


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    whole = talking_model.write(folder / "heavy-f16.gguf")
    trit.quantize(whole, folder / "light-q2.gguf", "Q2_K", threads=1)
    return [whole, folder / "light-q2.gguf"]


@pytest.fixture
def store(models: list[Path], tmp_path: Path) -> Iterator[Store]:
    copies = [tmp_path / path.name for path in models]
    for path, copy in zip(models, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    settings = StudySettings(max_tokens=6, ctx=200, seed=2)
    trit.compare(copies, ["Tell me about 1."], tmp_path / "s.sqlite", settings, threads=1)
    with Store.open(tmp_path / "s.sqlite") as store:
        yield store


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    app = create_study_app(Voting(store), Settings(), Asking(store, most=3, threads=1))
    with live.listening(app) as address:
        yield Site(address, store, tmp_path)


class Slow(Asking):
    """Answers when it is let, with a fault of its own if there is one."""

    def __init__(self, store: Store, fault: Exception | None = None) -> None:
        super().__init__(store, threads=1)
        self.begun, self.go, self.fault = threading.Semaphore(0), threading.Event(), fault
        self.cancelled: threading.Event | None = None

    def _answers(self, number: int, text: str, cancelled: threading.Event) -> list[Answer]:
        self.cancelled = cancelled
        self.begun.release()
        if self.fault is not None:
            raise self.fault
        while not self.go.wait(0.01):
            if cancelled.is_set():
                return []
        return super()._answers(number, text, cancelled)


def test_from_a_prompt_to_a_vote(site: Site) -> None:
    first = site.next()
    assert first["own"] == {"left": 3, "letters": 2000}
    answer = site.ask("Go on.")
    assert (answer.status, answer.json) == (200, {"same": False, "left": 2})
    turn = site.next()
    assert turn["presentation"]["prompt"] == "Go on." and turn["own"]["left"] == 2
    assert turn["presentation"]["names"] is None and turn["planned"] == first["planned"] + 1
    token = turn["presentation"]["token"]
    vote = {"token": token, "choice": "1"}
    assert live.ask(site.address, "/compare/votes", vote).status == 200
    assert site.next()["presentation"] == first["presentation"]
    assert site.next(BOB)["planned"] == 1, "nobody else is asked about it"
    found = live.ask(site.address, "/compare/results").json
    assert (found["votes"], found["planned"], found["results"]) == (0, 1, None)
    vote = {"token": first["presentation"]["token"], "choice": "tie"}
    live.ask(site.address, "/compare/votes", vote)
    found = live.ask(site.address, "/compare/results").json["results"]
    assert found["own"] == {"prompts": 1, "voters": 1, "votes": 1, "included": False}
    assert found["votes"] == found["pairs"][0]["ties"] == 1, "in no figure"


def test_no_answer_tells_of_a_model(site: Site) -> None:
    """Neither what the request is answered with, nor what comes after it."""
    for prompt in ("Go on.", "And then?", "x" * 300, "", "Fourth.", "Fifth."):
        answer = site.ask(prompt)
        assert set(answer.json) in ({"same", "left"}, {"error"})
        text = answer.body + str(answer.headers) + json.dumps(site.next()) * (prompt != "x" * 300)
        known = text.replace("tokens; the study has room", "")
        assert not NAMES.search(known), known


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt"),
        (" \n ", "empty"),
        ("x" * 2001, "prompt"),
        ("Tell me about 1.", "in its turn"),
        (3, "prompt"),
        ("y" * 300, "tokens; the study has room for 200"),
    ],
)
def test_what_is_refused(site: Site, prompt: Any, message: str) -> None:
    answer = site.ask(prompt)
    assert answer.status == 400 and message in answer.error["message"]
    assert len(site.store.prompts()) == 1


def test_no_more_than_a_voter_may(site: Site) -> None:
    for left, prompt in zip((2, 1, 0), ("One.", "Two.", "Three."), strict=True):
        assert site.ask(prompt).json["left"] == left
    answer = site.ask("Four.")
    assert answer.status == 400 and "all 3 prompts" in answer.error["message"]
    assert site.ask("Four.", BOB).status == 200


def test_the_same_door(store: Store) -> None:
    """Key, Host, Origin and size, as everywhere."""
    settings = Settings(api_keys=("secret",), body_bytes=500)
    with live.listening(create_study_app(Voting(store), settings, Asking(store))) as address:
        site, key = Site(address, store, Path()), {"Authorization": "Bearer secret"}
        assert site.ask("Go on.").status == 401
        assert site.ask("Go on.", **key, Host="example.org").error["code"] == "host_not_allowed"
        assert site.ask("Go on.", **key, Origin="http://example.org").status == 403
        assert site.ask("x" * 600, **key).status == 413
        assert len(store.prompts()) == 1
        assert site.ask("Go on.", **key).status == 200


def test_a_study_without_them(store: Store) -> None:
    with live.listening(create_study_app(Voting(store), Settings())) as address:
        site = Site(address, store, Path())
        assert site.ask("Go on.").status == 404 and site.next()["own"] is None


def test_who_leaves_cancels(store: Store) -> None:
    """Nothing is kept, and the next in line has its turn."""
    slow = Slow(store)
    with live.listening(create_study_app(Voting(store), Settings(), slow)) as address:
        body = json.dumps({"voter": ANN, "prompt": "Go on."})
        connection = http.client.HTTPConnection(address)
        connection.request("POST", "/compare/prompts", body)
        slow.begun.acquire()
        assert slow.cancelled is not None and not slow.cancelled.is_set()
        connection.close()
        live.until(slow.cancelled.is_set)
        slow.go.set()
        assert Site(address, store, Path()).ask("And then?").status == 200
        assert list(store.prompts().values()) == ["Tell me about 1.", "And then?"]


def test_one_at_a_time_and_a_line_that_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A voter's second waits for nobody: it is refused; so is who finds the line full."""
    slow, lines = Slow(store), []

    def line(slots: int, length: int) -> Queue:
        lines.append(Queue(slots, length))
        return lines[0]

    monkeypatch.setattr(_asking, "Queue", line)
    app = create_study_app(Voting(store), Settings(queue=1), slow)
    with live.listening(app) as address:
        site, found = Site(address, store, Path()), []
        threads = [
            threading.Thread(target=lambda v=voter: found.append(site.ask("Go on.", v)))
            for voter in (ANN, BOB)
        ]
        threads[0].start()
        slow.begun.acquire()
        assert "being answered" in site.ask("And then?").error["message"]
        threads[1].start()
        live.until(lambda: lines[0].waiting == 1)
        assert "being answered" in site.ask("Again?", BOB).error["message"]
        full = site.ask("And then?", "a-voter-eve")
        assert full.status == 503 and full.headers["retry-after"] == "2"
        slow.go.set()
        for thread in threads:
            thread.join()
        assert [answer.status for answer in found] == [200, 200]


@pytest.mark.parametrize(
    "fault", [DoesNotFitError("/models/heavy-f16.gguf is too large"), RuntimeError("heavy-f16")]
)
def test_a_fault_is_said_without_a_name(
    store: Store, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """The log of who runs the study has the rest of it."""
    with live.listening(create_study_app(Voting(store), Settings(), Slow(store, fault))) as address:
        answer = Site(address, store, Path()).ask("Go on.")
        assert answer.status == 500 and "could not answer" in answer.error["message"]
        assert not NAMES.search(answer.body)
        assert len(store.prompts()) == 1
    (record,) = caplog.records
    assert ("too large" if isinstance(fault, DoesNotFitError) else "RuntimeError") in record.message


def test_a_model_that_is_gone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    (site.folder / "light-q2.gguf").unlink()
    answer = site.ask("Go on.")
    assert answer.status == 500 and not NAMES.search(answer.body)
    assert "light-q2.gguf" in caplog.text


def test_a_refusal_that_came_late(store: Store) -> None:
    """One that only the making of answers meets keeps its words."""
    app = create_study_app(Voting(store), Settings(), Slow(store, UsageError("shorten it.")))
    with live.listening(app) as address:
        answer = Site(address, store, Path()).ask("Go on.")
        assert (answer.status, answer.error["message"]) == (400, "shorten it.")
