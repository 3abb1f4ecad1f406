"""Answers by a grammar: always of the form, in any company; and what is no form is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import talking_model
from trit.errors import UsageError
from trit.runtime import constrain
from trit.runtime import generate as generation
from trit.runtime._tool_calls import ToolCallParser
from trit.runtime.constrain import json_schema
from trit.runtime.generate import Request
from trit.runtime.model import Model, load
from trit.runtime.sample import SamplerSettings

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8, "pattern": "^[a-z]*$"},
        "kind": {"enum": ["cat", "dog"]},
        "tall": {"type": "boolean"},
    },
    "required": ["name", "kind", "tall"],
    "additionalProperties": False,
}
COSTLY = [
    {"type": "string", "pattern": f".*{chr(97 + n)}.{{0,{n + 3}}}{chr(98 + n)}.*"}
    for n in range(16)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")
    with load(path, threads=1, draft_max=4) as opened:
        yield opened


def warm(seed: int) -> SamplerSettings:
    return SamplerSettings(temperature=2, top_k=0, top_p=1, min_p=0, seed=seed)


def test_answers_match_their_schema(model: Model) -> None:
    """Of a model of random weights, which says anything else as well."""
    grammar = json_schema(model.tokenizer, PERSON)
    ids = model.tokenize("x")
    requests = [Request(ids, warm(seed), 100, grammar=grammar) for seed in range(8)]
    answers = generation.generate(model.scheduler, model.tokenizer, requests)
    for answer in answers:
        found = json.loads(answer.text)
        assert set(found) == {"name", "kind", "tall"} and found["kind"] in ("cat", "dog")
        assert answer.finish_reason == "stop" and len(found["name"]) <= 8
    assert len({answer.text for answer in answers}) > 4
    alone = generation.generate(model.scheduler, model.tokenizer, requests[3:4])
    assert alone[0].tokens == answers[3].tokens


def test_an_end_only_where_the_form_is_complete(model: Model) -> None:
    guide = json_schema(model.tokenizer, {"type": "integer"}).begin()
    logits = np.zeros(model.engine.vocab_size, np.float32)
    ends = list(model.tokenizer.eos_ids)
    assert np.all(np.isneginf(guide.allowed(logits)[ends]))
    (one,) = model.tokenizer.encode("1", add_special=False)
    assert not guide.accept(one)
    allowed = guide.allowed(logits)
    assert np.any(allowed[ends] == 0) and np.isneginf(allowed[talking_model.START])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "string", "pattern": "("},
        {"$ref": "http://example.org/schema"},
        {"enum": ["x" * constrain.MOST_SCHEMA_CHARS]},
        {"allOf": COSTLY},
        {"allOf": [{"$ref": "#/$defs/x"}] * 16, "$defs": {"x": COSTLY[0]}},
        {
            "$ref": "#/$defs/0",
            "$defs": {str(n): {**one, "$ref": f"#/$defs/{n + 1}"} for n, one in enumerate(COSTLY)},
        },
    ],
)
def test_schemas_that_cannot_be_used(model: Model, schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        json_schema(model.tokenizer, schema)


def test_many_patterns_of_different_texts_are_none_too_many(model: Model) -> None:
    fields = {f"f{n}": one for n, one in enumerate(COSTLY)}
    json_schema(model.tokenizer, {"type": "object", "properties": fields})


def test_a_vocabulary_goes_with_its_model(model: Model) -> None:
    json_schema(model.tokenizer, PERSON)
    before = len(constrain._known)
    with load(model.path, threads=1) as other:
        json_schema(other.tokenizer, PERSON)
        assert len(constrain._known) == before + 1
    del other
    assert len(constrain._known) == before


def test_from_python(model: Model) -> None:
    """Texts, batches and streams; what is no schema is refused before anything is written."""
    schema = {"enum": ["yes", "no"]}
    assert model.generate("the", schema=schema, max_tokens=20).text in ('"yes"', '"no"')
    both = model.generate(["the", "cat"], schema=schema, max_tokens=20)
    assert all(one.text in ('"yes"', '"no"') for one in both)
    text = "".join(chunk.text for chunk in model.stream("the", schema=schema, max_tokens=20))
    assert text in ('"yes"', '"no"')
    with pytest.raises(UsageError):
        model.generate("the", schema={"type": "nonsense"})


def test_what_is_wrong_with_a_pattern_is_told(model: Model) -> None:
    for pattern, cause in (("(", "unclosed group"), ("(?=a)", "look-around, .* not supported")):
        with pytest.raises(UsageError, match=rf"regex parse error: {cause}\.$"):
            json_schema(model.tokenizer, {"type": "string", "pattern": pattern})


def test_calls_of_tools(model: Model) -> None:
    """In the form that is read again, one or several, and any name of a function."""
    for seed in range(4):
        grammar = constrain.tool_calls(
            model.tokenizer,
            {"a.b-c": {"properties": {"n": {"enum": [1, 2]}}, "required": ["n"],
                       "additionalProperties": False}},
            several=False,
        )  # fmt: skip
        request = Request(model.ids("x"), SamplerSettings(temperature=2, seed=seed), 200,
                          grammar=grammar)  # fmt: skip
        [answer] = generation.generate(model.scheduler, model.tokenizer, [request])
        text, calls = ToolCallParser().push(answer.text)
        assert (text, len(calls), calls[0].name) == ("", 1, "a.b-c")
        assert json.loads(calls[0].arguments)["n"] in (1, 2)
    with pytest.raises(UsageError):
        constrain.tool_calls(model.tokenizer, {"f": {"type": "object", "$ref": "x"}}, several=True)
