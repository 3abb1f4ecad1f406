"""The real `openai` client: what it asks, and what it gets, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from server import live
from trit.runtime.model import load

HELLO: Any = [{"role": "user", "content": "Hello"}]
GREEDY: dict[str, Any] = {"temperature": 0, "logit_bias": live.ENDLESS}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[openai.OpenAI]:
    with live.served({"talker": live.opener(path)}) as (address, _):
        yield openai.OpenAI(base_url=f"http://{address}/v1", api_key="any", max_retries=0)


def expected(path: Path, messages: Any, count: int) -> str:
    """What the runtime answers, greedily."""
    bias = {int(token): float(value) for token, value in live.ENDLESS.items()}
    with load(path, 2048, threads=1) as model:
        chosen = replace(model.sampling, temperature=0.0, logit_bias=bias)
        return model.generate(model.prompt(messages), max_tokens=count, sampling=chosen).text


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["talker"]
    assert client.models.retrieve("talker").owned_by == "trit"
    with pytest.raises(openai.NotFoundError, match="no model 'other'") as caught:
        client.chat.completions.create(model="other", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_whole_answer(client: openai.OpenAI, path: Path) -> None:
    got = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=8, **GREEDY)
    choice = got.choices[0]
    assert choice.message.content == expected(path, HELLO, 8)
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert got.usage is not None and got.object == "chat.completion"
    assert got.usage.completion_tokens == 8
    assert got.usage.total_tokens == got.usage.prompt_tokens + 8
    assert choice.message.tool_calls is None and choice.logprobs is None


def test_a_stream(client: openai.OpenAI, path: Path) -> None:
    """The role first, the reason last, no usage that nobody asked for."""
    chunks = list(
        client.chat.completions.create(
            model="talker", messages=HELLO, max_tokens=8, stream=True, **GREEDY
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == expected(path, HELLO, 8)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_of_a_stream_comes_alone(client: openai.OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=3, stream=True,
        stream_options={"include_usage": True}, **GREEDY,
    )  # fmt: skip
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens == 3
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)


def test_the_bytes_of_a_stream(client: openai.OpenAI) -> None:
    body = {"messages": HELLO, "max_tokens": 2, "stream": True, **GREEDY}
    address = f"{client.base_url.host}:{client.base_url.port}"
    got = live.ask(address, "/v1/chat/completions", body)
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, end = got.body.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert parsed[-1]["choices"][0]["delta"] == {}
    assert not any("usage" in event for event in parsed)


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(client: openai.OpenAI, stream: bool) -> None:
    """Each is what its own seed gives alone."""
    warm: dict[str, Any] = {"temperature": 1.5, "max_tokens": 6, "model": "talker"}
    texts = ["", "", ""]
    got: Any = client.chat.completions.create(messages=HELLO, n=3, seed=5, stream=stream, **warm)
    for chunk in got if stream else [got]:
        for choice in chunk.choices:
            part = choice.delta if stream else choice.message
            texts[choice.index] += part.content or ""
    alone = [
        client.chat.completions.create(messages=HELLO, seed=seed, **warm).choices[0].message.content
        for seed in (5, 6, 7)
    ]
    assert texts == alone and len(set(texts)) == 3


def test_stop(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=12, **GREEDY)
    text = whole.choices[0].message.content or ""
    stop = text[5:7]
    for stops in (stop, ["never", stop]):
        got = client.chat.completions.create(
            model="talker", messages=HELLO, max_tokens=12, stop=stops, **GREEDY
        )
        assert got.choices[0].message.content == text[: text.index(stop)]
        assert got.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client: openai.OpenAI, stream: bool) -> None:
    got: Any = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=3,
        stream=stream, **GREEDY,
    )  # fmt: skip
    found = [
        token
        for chunk in (got if stream else [got])
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert len(found) == 4
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in found)


def test_penalties_and_bias_reach_the_sampler(client: openai.OpenAI) -> None:
    """A bias of 100 writes one token; a penalty against it lets others through."""
    forced: dict[str, Any] = {"temperature": 0, "logit_bias": {"65": 100}, "max_tokens": 4}
    got = client.completions.create(model="talker", prompt="x", **forced)
    letter = got.choices[0].text[0]
    assert got.choices[0].text == letter * 4
    got = client.completions.create(
        model="talker", prompt="x", frequency_penalty=2, presence_penalty=2,
        temperature=0, logit_bias={"65": 5, **live.ENDLESS}, max_tokens=12,
    )  # fmt: skip
    assert got.choices[0].text != letter * 12


def test_developer_is_system(client: openai.OpenAI) -> None:
    address = f"{client.base_url.host}:{client.base_url.port}"
    prompts = [
        live.ask(
            address,
            "/apply-template",
            {"messages": [{"role": role, "content": [{"type": "text", "text": "Be brief."}]}]},
        ).json["prompt"]
        for role in ("system", "developer")
    ]
    assert prompts[0] == prompts[1] and "system\nBe brief." in prompts[0]


def test_completions(client: openai.OpenAI) -> None:
    """Texts and ids, several at a time, each `n` times."""
    plain: dict[str, Any] = {"model": "talker", "max_tokens": 5, **GREEDY}
    one = client.completions.create(prompt="the", **plain)
    ids = live.ask(
        f"{client.base_url.host}:{client.base_url.port}", "/tokenize", {"content": "the"}
    ).json["tokens"]
    both = client.completions.create(prompt=["the", "another"], n=2, logprobs=2, **plain)
    assert client.completions.create(prompt=ids, **plain).choices[0].text == one.choices[0].text
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == both.choices[1].text == one.choices[0].text
    assert both.usage is not None and both.usage.completion_tokens == 20
    found = both.choices[2].logprobs
    assert found is not None and len(found.tokens or []) == 5
    assert (found.text_offset or [])[0] == 0
    stream = client.completions.create(prompt="the", stream=True, **plain)
    assert "".join(chunk.choices[0].text for chunk in stream) == one.choices[0].text


def test_a_prompt_that_is_too_long_is_never_cut(client: openai.OpenAI) -> None:
    said = "This model's maximum context length is 2048 tokens"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            client.chat.completions.create(
                model="talker", messages=[{"role": "user", "content": "x" * 3000}], stream=stream
            )
        body: Any = caught.value.body
        assert caught.value.code == "context_length_exceeded"
        assert body["n_ctx"] == 2048 and 3000 < body["n_prompt_tokens"] < 3100


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"n": 99}, "n"),
        ({"seed": 1.5}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, None),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "assistant"}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"audio": {"voice": "x"}}, "audio"),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: openai.OpenAI, given: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **{"model": "talker", "messages": HELLO, "extra_body": given}
        )
    found = caught.value.param
    assert found == param or (found is not None and found.startswith(f"{param}."))
    assert found is None or not {"str", "user", "constrained-str"} & set(found.split("."))


def test_what_is_no_request(client: openai.OpenAI) -> None:
    address = f"{client.base_url.host}:{client.base_url.port}"
    path = "/v1/chat/completions"
    for body in (b"{", b"[]", b"1", b"\xff", b'{"messages": NaN}', b"[" * 100_000, b"null", b""):
        got = live.ask(address, path, body, method="POST")
        assert got.status == 400 and got.error["type"] == "invalid_request_error"
    surrogate = b'{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 1}'
    assert live.ask(address, path, surrogate).status == 200  # read as U+FFFD
    assert live.ask(address, "/nowhere").status == 404
    assert live.ask(address, "/v1/models/").error["code"] == "model_not_found"
    assert live.ask(address, path + "/").error["code"] == "not_found"
    assert live.ask(address, "/metrics/").error["code"] == "not_found"
    assert live.ask(address, path).status == 405
    assert live.ask(address, path).headers["allow"] == "POST"
    for given in (live.ask(address, "/nowhere"), live.ask(address, path)):
        assert given.error
