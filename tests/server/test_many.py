"""Many at a time: the answers are those of one alone, slots come back, the queue has an end."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from server import live
from trit.runtime.model import Model
from trit.server import _prompts, _service
from trit.server._service import Service
from trit.server.settings import Settings

CHAT = "/v1/chat/completions"
MANY = 24


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[tuple[str, FastAPI]]:
    with live.served({"talker": live.opener(path, 4)}, Settings(parallel=4)) as found:
        yield found


def body(number: int, **more: Any) -> dict[str, Any]:
    """A request like no other; its prompt begins like those of some others."""
    stem = "a common beginning of some length, " * (number % 3)
    return {
        "messages": [{"role": "user", "content": f"{stem}canary {number}"}],
        "max_tokens": 5 + number % 7,
        "temperature": 1.2,
        "seed": number,
        "logit_bias": live.ENDLESS,
        **more,
    }


def _model(app: FastAPI) -> Model:
    model: Model | None = app.state.service.shelf.entries["talker"].model
    assert model is not None
    return model


def text(answer: live.Answer) -> str:
    found: str = answer.json["choices"][0]["message"]["content"]
    return found


def stream_text(answer: live.Answer) -> str:
    events = [line.removeprefix("data: ") for line in answer.body.split("\n\n")[:-2]]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content", "") for delta in deltas)


def test_alone_and_in_company(server: tuple[str, FastAPI]) -> None:
    """With a seed, bit for bit: no answer, and no part of one, reaches anybody else."""
    address, _ = server

    def ask(number: int) -> str:
        if number % 2:
            return stream_text(live.ask(address, CHAT, body(number, stream=True)))
        return text(live.ask(address, CHAT, body(number)))

    alone = [ask(number) for number in range(MANY)]
    assert len(set(alone)) == MANY
    with ThreadPoolExecutor(MANY) as pool:
        for _ in range(2):
            assert list(pool.map(ask, range(MANY))) == alone


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(server: tuple[str, FastAPI], stream: bool) -> None:
    """Within a token: the sequence is gone long before its 1,500 tokens are written."""
    address, app = server
    service: Service = app.state.service
    model = _model(app)
    connection = http.client.HTTPConnection(address, timeout=120)
    asked = body(1, max_tokens=1500, stream=stream)
    connection.request("POST", CHAT, json.dumps(asked))
    live.until(lambda: service.queue.running == 1)
    live.until(lambda: model.scheduler._running)
    if stream:
        assert connection.getresponse().read(100)
    run = model.scheduler._running[0]
    connection.sock.close()
    connection.close()
    live.until(lambda: service.queue.running == 0 and run.ended)
    assert len(run.tokens) < 1000 and not model.scheduler._running


def test_one_that_leaves_the_queue(path: Path) -> None:
    """It frees its place; one more than may wait is told at once when to come again."""
    settings = Settings(parallel=1, queue=1)
    with live.served({"talker": live.opener(path, 1)}, settings) as (address, app):
        queue = app.state.service.queue
        first, second = (http.client.HTTPConnection(address, timeout=120) for _ in range(2))
        first.request("POST", CHAT, json.dumps(body(1, max_tokens=1900)))
        live.until(lambda: queue.running == 1)
        second.request("POST", CHAT, json.dumps(body(2)))
        live.until(lambda: queue.waiting == 1)
        for _ in range(10):
            third = live.ask(address, CHAT, body(3))
            assert third.status == 503 and int(third.headers["retry-after"]) > 0
            assert third.error["code"] == "unavailable"
        second.sock.close()
        live.until(lambda: queue.waiting == 0)
        first.sock.close()
        live.until(lambda: queue.running == 0)
        assert live.ask(address, CHAT, body(3)).status == 200


def test_what_is_prepared_has_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a model is asked, a request counts already, as one that runs or as one that waits."""
    gate, prepare = threading.Event(), _prompts.template_messages

    def slowly(messages: Any) -> Any:
        assert gate.wait(60)
        return prepare(messages)

    monkeypatch.setattr(_prompts, "template_messages", slowly)
    models, settings = {"talker": live.opener(path, 1)}, Settings(parallel=1, queue=1)
    with live.served(models, settings) as (address, app), ThreadPoolExecutor(2) as pool:
        queue = app.state.service.queue
        both = [pool.submit(live.ask, address, CHAT, body(number)) for number in range(2)]
        live.until(lambda: (queue.running, queue.waiting) == (1, 1))
        assert live.ask(address, CHAT, body(3)).status == 503
        gate.set()
        assert [one.result().status for one in both] == [200, 200]
        live.until(lambda: (queue.running, queue.waiting) == (0, 0))


def test_who_reads_slowly_holds_no_slot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not read is kept for it; the next one is answered meanwhile."""
    begun, reads, send = threading.Event(), threading.Event(), _service._send

    async def late(*arguments: Any, **more: Any) -> None:
        begun.set()
        while not reads.is_set():
            await asyncio.sleep(0.01)
        await send(*arguments, **more)

    monkeypatch.setattr(_service, "_send", late)
    models = {"talker": live.opener(path, 1)}
    with live.served(models, Settings(parallel=1)) as (address, _), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(live.ask, address, CHAT, body(1, max_tokens=20, stream=True))
        live.until(begun.is_set)  # it has its turn
        assert live.ask(address, CHAT, body(2)).status == 200
        assert not slow.done()
        reads.set()
        assert len(stream_text(slow.result())) > 0


def test_a_request_that_takes_too_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, it is an error; of a stream, the last event is one."""
    models, settings = {"talker": live.opener(path)}, Settings(timeout=2)
    with live.served(models, settings) as (address, app), ThreadPoolExecutor(2) as pool:
        service: Service = app.state.service
        engine = _model(app).engine
        forward = engine.forward

        def slowly(*arguments: Any) -> Any:
            time.sleep(0.05)
            return forward(*arguments)

        monkeypatch.setattr(engine, "forward", slowly)
        asked = [body(1, max_tokens=2000, stream=stream) for stream in (False, True)]
        whole, stream = pool.map(lambda one: live.ask(address, CHAT, one), asked)
        assert whole.status == 503 and "2 s" in whole.error["message"]
        if stream.status == 503:  # on a machine so busy that it was not begun in time
            last = stream.json
        else:
            last = json.loads(stream.body.split("\n\n")[-2].removeprefix("data: "))
        assert "2 s" in last["error"]["message"]
        live.until(lambda: service.queue.running == 0)


def test_a_step_that_fails_hurts_those_in_it_alone(
    server: tuple[str, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, app = server
    model = _model(app)

    def fail(*arguments: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "forward", fail)
        assert live.ask(address, CHAT, body(1)).status == 500
    assert live.ask(address, CHAT, body(1)).status == 200


def test_metrics(server: tuple[str, FastAPI]) -> None:
    address, _ = server
    before = live.ask(address, "/metrics").body
    assert live.ask(address, CHAT, body(1, max_tokens=5)).status == 200
    after = live.ask(address, "/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=0.0.4")

    def value(text: str, name: str) -> float:
        return next(float(line.split()[-1]) for line in text.split("\n") if line.startswith(name))

    for name, more in (
        ('trit_requests_total{path="/v1/chat/completions",status="200"}', 1),
        ("trit_generated_tokens_total", 5),
        ("trit_first_token_seconds_count", 1),
    ):
        assert value(after.body, name) == value(before, name) + more
    assert value(after.body, "trit_requests_running") == 0


def test_memory_is_given_back(server: tuple[str, FastAPI]) -> None:
    """The cache of a hundred requests is no larger than that of the last few."""
    address, app = server
    model = _model(app)
    sizes = []
    for number in range(100):
        assert live.ask(address, CHAT, body(number, max_tokens=3)).status == 200
        sizes.append(model.engine.cache_pages())
    assert max(sizes[50:]) <= max(sizes[:50])
    assert not app.state.service.driver._jobs
