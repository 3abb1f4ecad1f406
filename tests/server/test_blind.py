"""/compare: votes over HTTP, and that nothing there tells who wrote an answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

from compare import studies
from server import live
from trit.compare import Asking, Voting
from trit.compare.study import Answer
from trit.server.app import create_study_app
from trit.server.settings import Settings

VOTER = {"voter": "a-random-name"}


@pytest.fixture
def voting(tmp_path: Path) -> Iterator[Voting]:
    with studies.written(tmp_path / "study.sqlite", same=(2,)) as store:
        yield Voting(store)


@pytest.fixture
def address(voting: Voting) -> Iterator[str]:
    with live.listening(create_study_app(voting, Settings())) as address:
        yield address


def post(address: str, path: str, body: object) -> Any:
    answer = live.ask(address, f"/compare/{path}", body)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_pass_with_an_undo(address: str, voting: Voting) -> None:
    """Who likes the heavier model; once a vote is taken back and cast again."""
    turn = post(address, "next", VOTER)
    undone = False
    while (shown := turn["presentation"]) is not None:
        assert set(shown) == {"token", "prompt", "answers", "names"} and shown["names"] is None
        assert turn["planned"] == 10 and turn["ask_belief"] is True
        heavier = "1" if studies.author(shown["answers"][0]) == 0 else "2"
        post(address, "votes", {"token": shown["token"], "choice": heavier})
        post(address, "beliefs", {"token": shown["token"], "heavier": heavier})
        if turn["voted"] >= 4 and not undone:
            undone = True
            again = post(address, "undo", VOTER)
            assert again["presentation"]["answers"] == shown["answers"]
            assert again["presentation"]["token"] != shown["token"]
        turn = post(address, "next", VOTER)
    assert turn["voted"] == 10
    found = live.ask(address, "/compare/results").json["results"]
    (pair,) = found["pairs"]
    assert (pair["wins"], pair["losses"], pair["same"]) == (9, 0, 1) and pair["told"]
    assert found["beliefs"]["right"]["value"] == 1 and found["undone"] == 1


def test_results_are_kept_back(address: str) -> None:
    """Who sees the counts move by a vote knows which side was which."""
    shown = post(address, "next", VOTER)["presentation"]
    post(address, "votes", {"token": shown["token"], "choice": "1"})
    answer = live.ask(address, "/compare/results")
    assert answer.json["planned"] == 10 and answer.json["votes"] in (1, 2)
    assert answer.json["results"] is None


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("votes", {"token": "none", "choice": "1"}, "no such presentation"),
        ("votes", {"token": "none", "choice": "A"}, "choice"),
        ("beliefs", {"token": "none", "heavier": "1"}, "no vote stands"),
        ("next", {"voter": "x"}, "voter"),
        ("next", {"voter": "../../../etc"}, "voter"),
        ("next", {**VOTER, "arm": "named"}, "arm"),
        ("undo", {}, "voter"),
    ],
)
def test_what_is_refused(address: str, path: str, body: object, message: str) -> None:
    answer = live.ask(address, f"/compare/{path}", body)
    assert answer.status == 400 and message in answer.error["message"]


def test_a_study_names_no_model(address: str) -> None:
    """The page, the document and the other paths of a server that answers with models."""
    for path in ("/", "/openapi.json", "/v1/models", "/metrics", "/health", "/card"):
        answer = live.ask(address, path)
        assert answer.status == (200 if path in ("/", "/openapi.json") else 404)
        assert not re.search("heavy-f16|light-q2|/models/", str(answer.headers) + answer.body)


def test_no_field_tells_who_wrote_an_answer(tmp_path: Path) -> None:
    """Of 240 presentations, the heavier model first in half: whatever a voter can see but the texts
    is no different between the halves, by a permutation test of each figure.

    The texts are of one length here, which in a real study they are not; that is what is compared.
    """
    with studies.written(tmp_path / "study.sqlite", prompts=24) as store:
        heavier_first, seen = [], []
        with live.listening(create_study_app(Voting(store), Settings())) as address:
            for voter in range(10):
                for _ in range(24):
                    begun = time.perf_counter()
                    answer = live.ask(address, "/compare/next", {"voter": f"voter-{voter:04}"})
                    seconds = time.perf_counter() - begun
                    shown = answer.json["presentation"]
                    heavier_first.append(studies.author(shown["answers"][0]) == 0)
                    seen.append(_figures(answer, seconds))
                    text = answer.body + str(answer.headers)
                    assert not re.search("heavy|light|f16|gguf|seconds|tokens|0{8}", text)
                    post(address, "votes", {"token": shown["token"], "choice": "tie"})
    first = np.array(heavier_first)
    assert first.sum() == 120, "sides are even"
    random = np.random.default_rng(0)
    for name in seen[0]:
        values = np.argsort(np.argsort([figures[name] for figures in seen])).astype(float)
        if name != "seconds":
            values = np.array([float(figures[name]) for figures in seen])
        observed = abs(values[first].mean() - values[~first].mean())
        chance = [
            abs(values[order].mean() - values[~order].mean())
            for order in (random.permutation(first) for _ in range(2000))
        ]
        assert np.mean(np.array(chance) >= observed - 1e-12) > 0.001, name


def _figures(answer: live.Answer, seconds: float) -> dict[str, float]:
    """What can be measured of a response."""
    token = answer.json["presentation"]["token"]
    headers = {k: v for k, v in answer.headers.items() if k != "date"}
    return {
        "seconds": seconds,
        "bytes": len(answer.body),
        "headers": len(str(headers)),
        "fields": len(re.findall('":', answer.body)),
        "token letters": sum(map(ord, token)) / len(token),
        "token length": len(token),
        "first of the token": ord(token[0]),
    }


def test_every_answer_is_documented(voting: Voting) -> None:
    """Schemathesis: in status, type and shape; and what breaks the document is refused."""
    load_all_checks()
    app = create_study_app(voting, Settings(), Made(voting.store, most=1000))
    schema = schemathesis.openapi.from_dict(app.openapi())
    with live.listening(app) as address:
        for operation in (found.ok() for found in schema.get_all_operations()):
            for mode in GenerationMode:
                if mode is GenerationMode.POSITIVE or operation.label.startswith("POST"):
                    _hold(operation, mode, address)


class Made(Asking):
    """Answers without models."""

    def _answers(self, number: int, text: str, cancelled: threading.Event) -> list[Answer]:
        return studies.answers(self.store, number)

    def _hold(self, answers: Sequence[Answer]) -> float:
        return 0.0


def _hold(operation: Any, mode: GenerationMode, address: str) -> None:
    # A token of the right shape may be of no presentation.
    excluded = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]

    @settings(
        max_examples=6, deadline=None, phases=[Phase.generate], derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def every(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(base_url=f"http://{address}", excluded_checks=excluded)

    every()
