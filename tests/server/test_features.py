"""What else there is: tools, forms of answers, embeddings, templates, several models."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import talking_model
from server import live
from trit.runtime.model import load
from trit.runtime.sample import Sampler
from trit.server.settings import Settings

HELLO: Any = [{"role": "user", "content": "Hello"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]
TEMPLATE = (
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.city }})"
    "{% endfor %};{% endfor %}"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = {"llama.context_length": 1024, "tokenizer.chat_template": TEMPLATE}
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf", keys)


@pytest.fixture(scope="module")
def address(path: Path) -> Iterator[str]:
    with live.served({"talker": live.opener(path, ctx=1024)}) as (found, _):
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key="any", max_retries=0)


@pytest.fixture
def says(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`says(text)`: every answer from now on is this text, token by token."""
    with load(path, threads=1) as model:
        tokenizer = model.tokenizer
        encode = tokenizer.encode

    def script(text: str) -> None:
        ids = [*encode(text, add_special=False), talking_model.EOS]
        starts: dict[int, int] = {}

        def sample(self: Sampler, logits: Any, position: int) -> int:
            return ids[position - starts.setdefault(id(self), position)]

        monkeypatch.setattr(Sampler, "sample", sample)

    return script


def test_tool_calls(client: openai.OpenAI, says: Callable[[str], None]) -> None:
    says(f"I look. {CALL}")
    got = client.chat.completions.create(model="talker", messages=HELLO, tools=TOOLS)
    choice = got.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look. ")
    (call,) = choice.message.tool_calls or []
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Rome"}


def test_streamed_tool_calls(client: openai.OpenAI, says: Callable[[str], None]) -> None:
    """Each has its index and arguments that are a text."""
    says(f"I look. {CALL}{CALL}")
    chunks = list(
        client.chat.completions.create(model="talker", messages=HELLO, tools=TOOLS, stream=True)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "I look. "
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 1] and calls[0].id != calls[1].id
    for call in calls:
        assert call.function is not None
        assert json.loads(call.function.arguments or "") == {"city": "Rome"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_without_tools_calls_are_text(client: openai.OpenAI, says: Callable[[str], None]) -> None:
    says(CALL)
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        kwargs: dict[str, Any] = more
        got = client.chat.completions.create(model="talker", messages=HELLO, **kwargs)
        assert got.choices[0].message.content == CALL
        assert got.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_offsets_of_tokens(
    client: openai.OpenAI, says: Callable[[str], None], stream: bool
) -> None:
    """Of split characters, and where text is held back because a stop string may begin there."""
    says("a😀bSTä STOP")
    got: Any = client.completions.create(
        model="talker", prompt="x", logprobs=0, stop="STOP", stream=stream
    )
    choices = [chunk.choices[0] for chunk in (got if stream else [got])]
    found = [at for choice in choices if choice.logprobs for at in choice.logprobs.text_offset]
    assert "".join(choice.text for choice in choices) == "a😀bSTä "
    assert found == [0, 1, 1, 1, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]


CITY: Any = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"$ref": "#/$defs/days"}},
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
}
TWO: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}},
    {"type": "function", "function": {"name": "time.now"}},
]
WEATHER: Any = {"type": "function", "function": {"name": "weather"}}


def called(choice: Any) -> list[tuple[str, Any]]:
    calls = choice.message.tool_calls or []
    return [(one.function.name, json.loads(one.function.arguments)) for one in calls]


@pytest.mark.parametrize("seed", range(4))
def test_calls_that_have_to_come(client: openai.OpenAI, seed: int) -> None:
    """A model of random weights calls functions, with arguments of their schemas."""
    ask: Any = {"model": "talker", "messages": HELLO, "tools": TWO, "seed": seed, "temperature": 2}
    got = client.chat.completions.create(
        **ask, tool_choice="required", parallel_tool_calls=False
    ).choices[0]
    assert got.finish_reason == "tool_calls" and got.message.content is None
    (call,) = called(got)
    (named,) = called(client.chat.completions.create(**ask, tool_choice=WEATHER).choices[0])
    for name, arguments in (call, named):
        if name == "weather":
            assert arguments["city"] in ("Rome", "Oslo") and 1 <= arguments["days"] <= 9
        else:
            assert (name, arguments) == ("time.now", {})
    assert named[0] == "weather"


def test_several_calls_that_have_to_come(
    client: openai.OpenAI, says: Callable[[str], None]
) -> None:
    says(f"{CALL}\n{CALL}")
    ask: Any = {"model": "talker", "messages": HELLO, "tools": TOOLS}
    got = client.chat.completions.create(**ask, tool_choice="required").choices[0]
    assert called(got) == [("weather", {"city": "Rome"})] * 2


def test_calls_or_a_form(client: openai.OpenAI, says: Callable[[str], None]) -> None:
    says(CALL)
    ask: Any = {"model": "talker", "messages": HELLO, "tools": TOOLS,
                "response_format": {"type": "json_object"}}  # fmt: skip
    assert called(client.chat.completions.create(**ask).choices[0])
    says('{"a": 1}')
    got = client.chat.completions.create(**ask).choices[0].message
    assert (got.content, got.tool_calls) == ('{"a": 1}', None)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TWO, "tool_choice": {**WEATHER, "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": TWO, "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [*TOOLS, *TOOLS]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "x"}}}],
          "tool_choice": "required"}, "tools"),
    ],
)  # fmt: skip
def test_calls_that_are_refused(client: openai.OpenAI, more: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="talker", messages=HELLO, **more)
    assert caught.value.param == param


def test_calls_and_results_reach_the_template(address: str) -> None:
    call = {"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}  # fmt: skip
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    asked = {"messages": messages, "tools": TOOLS}
    prompt = live.ask(address, "/apply-template", asked).json["prompt"]
    assert prompt.startswith('tools: [{"type": "function", "function": {"name": "weather"')
    assert prompt.endswith("user: Hello;assistant: weather(Rome);tool: sunny;")
    call["function"] = {"name": "weather", "arguments": "{"}
    got = live.ask(address, "/apply-template", asked)
    assert got.status == 400 and got.error["param"] == "messages.1.tool_calls"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a model whose template knows of thoughts."""
    template = TEMPLATE + "{% if enable_thinking is false %}<think></think>{% endif %}"
    keys = {"llama.context_length": 1024, "tokenizer.chat_template": template}
    made = talking_model.write(tmp_path_factory.mktemp("thinker") / "model.gguf", keys)
    with live.served({"talker": live.opener(made, ctx=1024)}) as (found, _):
        yield found


def test_reasoning(thinker: str, says: Callable[[str], None]) -> None:
    says("<think>\nwhy\n</think>\n\nso")
    asked = {"messages": HELLO}
    got = live.ask(thinker, "/v1/chat/completions", asked).json
    message = got["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("so", "why")
    details = got["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == got["usage"]["completion_tokens"] - len("\n\nso")
    whole = {**asked, "reasoning_format": "none"}
    message = live.ask(thinker, "/v1/chat/completions", whole).json["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nso"}
    client = openai.OpenAI(base_url=f"http://{thinker}/v1", api_key="any", max_retries=0)
    deltas: list[Any] = [
        chunk.choices[0].delta
        for chunk in client.chat.completions.create(model="talker", messages=HELLO, stream=True)
    ]
    assert "".join(getattr(one, "reasoning_content", None) or "" for one in deltas) == "why"
    assert "".join(one.content or "" for one in deltas) == "so"


def test_thinking_can_be_turned_off(thinker: str) -> None:
    asked = {"messages": HELLO, "chat_template_kwargs": {"enable_thinking": False}}
    assert live.ask(thinker, "/apply-template", asked).json["prompt"].endswith("<think></think>")
    assert live.ask(thinker, "/v1/chat/completions", {**asked, "max_tokens": 1}).status == 200
    asked["chat_template_kwargs"] = {"messages": []}
    assert live.ask(thinker, "/v1/chat/completions", asked).status == 400


@pytest.mark.parametrize("stream", [False, True])
def test_json_of_a_schema(client: openai.OpenAI, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cat", "dog"]}, "tall": {"type": "boolean"}},
        "required": ["kind", "tall"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    got: Any = client.chat.completions.create(
        model="talker", messages=HELLO, response_format=form, stream=stream, temperature=2
    )
    parts = [
        (choice.delta if stream else choice.message).content
        for chunk in (got if stream else [got])
        for choice in chunk.choices
    ]
    found = json.loads("".join(part or "" for part in parts))
    assert found["kind"] in ("cat", "dog") and isinstance(found["tall"], bool)


def test_any_object(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(
        model="talker", messages=HELLO, response_format={"type": "json_object"}, max_tokens=5
    )
    assert (got.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ({"type": "xml"}, {}),
        ({"type": "json_schema"}, {}),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}, {}),
    ],
)
def test_forms_that_are_refused(client: openai.OpenAI, form: Any, more: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="talker", messages=HELLO, response_format=form, **more)
    assert str(caught.value.param).startswith("response_format")


def test_without_a_template_the_way_is_named(tmp_path: Path) -> None:
    path = talking_model.write(tmp_path / "model.gguf", {"tokenizer.chat_template": ""})
    with live.served({"base": live.opener(path, ctx=256)}) as (address, _):
        for asked in ({"messages": HELLO}, {"messages": HELLO, "tools": TOOLS}):
            for place in ("/v1/chat/completions", "/apply-template"):
                got = live.ask(address, place, asked)
                assert got.status == 400 and got.error["param"] == "messages"
                assert got.error["message"].endswith("goes on from a text: use /v1/completions.")
        got = live.ask(address, "/v1/completions", {"prompt": "the", "max_tokens": 1})
        assert got.status == 200


def test_embeddings(client: openai.OpenAI, address: str) -> None:
    """The client asks for base64; numbers are the same."""
    got = client.embeddings.create(model="talker", input=["the cat", "a dog", "the cat"])
    one, other, again = (np.array(row.embedding) for row in got.data)
    assert np.array_equal(one, again) and not np.allclose(one, other)
    assert np.isclose(np.linalg.norm(one), 1)
    assert got.usage.prompt_tokens == got.usage.total_tokens > 0
    plain = live.ask(address, "/v1/embeddings", {"input": "the cat"}).json["data"][0]["embedding"]
    assert np.array_equal(np.array(plain, np.float32), one.astype(np.float32))
    packed = live.ask(
        address, "/v1/embeddings", {"input": "the cat", "encoding_format": "base64"}
    ).json["data"][0]["embedding"]
    assert base64.b64decode(packed) == np.array(plain, "<f4").tobytes()
    with pytest.raises(openai.BadRequestError, match="room for 1024"):
        client.embeddings.create(model="talker", input="x" * 2000)


def test_tokens_and_text(address: str) -> None:
    tokens = live.ask(address, "/tokenize", {"content": "the cät"}).json["tokens"]
    assert live.ask(address, "/detokenize", {"tokens": tokens}).json["content"] == "the cät"
    asked = {"content": "ä", "with_pieces": True}
    pieces = live.ask(address, "/tokenize", asked).json["tokens"]
    assert [piece["piece"] for piece in pieces] == [[0xC3], [0xA4]]
    assert live.ask(address, "/detokenize", {"tokens": [10**6]}).status == 400


def test_while_the_model_is_loaded(path: Path) -> None:
    """The server says so, and when to come again."""
    gate = threading.Event()

    def slowly() -> Any:
        assert gate.wait(30)
        return load(path, 1024, threads=1)

    with live.served({"talker": slowly}, wait=False) as (address, _):
        for asked in (("/health",), ("/v1/chat/completions", {"messages": HELLO})):
            got = live.ask(address, *asked)
            assert got.status == 503 and int(got.headers["retry-after"]) > 0
        assert live.ask(address, "/v1/models").json["data"][0]["state"] == "loading"
        gate.set()
        live.until(lambda: live.ask(address, "/health").status == 200)


def test_a_model_is_not_put_away_in_the_middle_of_a_step(path: Path) -> None:
    """Its only client leaves while a step takes longer than a model may be idle."""
    settings = Settings(sleep_idle_seconds=0.2)
    with live.served({"talker": live.opener(path, ctx=1024)}, settings) as (address, app):
        entry = app.state.service.shelf.entries["talker"]
        entry.users += 1  # so that it is not put away before it is patched
        live.until(lambda: live.ask(address, "/tokenize", {"content": "x"}).status == 200)
        model, stepping, closed = entry.model, threading.Event(), []
        forward, close = model.engine.forward, model.close

        def slowly(*arguments: Any) -> Any:
            stepping.set()
            time.sleep(1)
            assert not closed
            return forward(*arguments)

        model.engine.forward = slowly
        model.close = lambda: (closed.append(True), close())
        connection = HTTPConnection(address, timeout=120)
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": HELLO}))
        assert stepping.wait(60)
        entry.users -= 1
        connection.sock.close()
        live.until(lambda: closed)
        assert entry.state == "unloaded"
        again = {"messages": HELLO, "max_tokens": 2}
        assert live.ask(address, "/v1/chat/completions", again).status == 200


def test_several_models_that_sleep(path: Path) -> None:
    """Each is loaded when a request names it, and unloaded when none does for a while."""
    models = {name: live.opener(path, ctx=1024) for name in ("one", "two")}
    settings = Settings(sleep_idle_seconds=0.5)
    with live.served(models, settings) as (address, app):

        def states() -> list[str]:
            return [model["state"] for model in live.ask(address, "/v1/models").json["data"]]

        assert states()[1] == "unloaded"
        asked = {"messages": HELLO, "max_tokens": 2, "temperature": 0}
        assert live.ask(address, "/v1/chat/completions", asked).error["param"] == "model"
        first, second = (
            live.ask(address, "/v1/chat/completions", {**asked, "model": name}).json
            for name in ("one", "two")
        )
        assert first["choices"] == second["choices"] and second["model"] == "two"
        live.until(lambda: states() == ["unloaded"] * 2, 10)
        assert app.state.service.shelf.entries["two"].model is None
        again = live.ask(address, "/v1/chat/completions", {**asked, "model": "two"}).json
        assert again["choices"] == second["choices"]
