"""The bodies that are understood: OpenAI's, with llama-server's samplers and endpoints on top.

Types are strict (no "5" for 5) and a field that is not listed is refused, as OpenAI refuses it: a
setting that is not understood changes nothing, and its sender should know. Fields that cannot
change an answer (`user`, `metadata`, a function's `strict` …) are taken and have no effect.

The first thing that is wrong with a list, or with the names of an object's fields, is the last one
looked for: a megabyte of wrong things would else make a million errors, of which one is told.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

MOST_CHOICES = 16
MOST_LOGPROBS = 20
MOST_INPUTS = 256
MOST_TOKEN = 2**31 - 1
MOST_BIASES = 1024
MOST_METADATA = 16  # OpenAI's own bound

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
Stop = Annotated[str, StringConstraints(min_length=1, max_length=500)]
TokenKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Token = Annotated[int, Field(ge=0, le=MOST_TOKEN)]
Tokens = Annotated[list[Token], Field(min_length=1, fail_fast=True)]
Several = Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True)
Inputs = str | Tokens | Annotated[list[str], Several] | Annotated[list[Tokens], Several]
Unit = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


def _at_most(count: int) -> BeforeValidator:
    """Refuses an object of more than `count` fields before any of them is looked at."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > count:
            raise PydanticCustomError("too_long", "at most {count} fields", {"count": count})
        return given

    return BeforeValidator(check)


class Body(BaseModel):
    """A JSON object of exactly these fields."""

    model_config = _STRICT

    @model_validator(mode="before")
    @classmethod
    def _refuse_many(cls, given: Any) -> Any:
        """Where there are more fields than can be known, one that is not is all that is told."""
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            first = next(name for name in given if name not in known)
            raise PydanticCustomError("extra_forbidden", "not known", {"field": str(first)[:100]})
        return given


class StreamOptions(Body):
    """`include_usage`: a last chunk with the tokens that all took."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Sampling(Body):
    """What every endpoint that generates takes. A setting that is absent is the model's own."""

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_TOKEN)] | None = None
    min_p: Unit | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[
            dict[TokenKey, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MOST_BIASES),
            _at_most(MOST_BIASES),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16, fail_fast=True)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Without effect on an answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    cache_prompt: Literal[True] | None = None


class TextPart(Body):
    """A part of a message; images and sound are not understood."""

    type: Literal["text"]
    text: str


Content = str | Annotated[list[TextPart], Field(fail_fast=True)]


class SystemMessage(Body):
    """`developer` is OpenAI's newer word for the same."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Body):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class CalledFunction(Body):
    """`arguments` is JSON text of an object."""

    name: str
    arguments: str


class CalledTool(Body):
    """A call of an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(Body):
    """An earlier answer; the last fields are what other servers answer besides."""

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=128, fail_fast=True)] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class ToolMessage(Body):
    """What a called function returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
Messages = Annotated[list[Message], Field(min_length=1, max_length=4096, fail_fast=True)]


class Function(Body):
    """A function that the model may call; `parameters` is a JSON schema that the template is told.
    Calls that have to come are held to it, with `strict` or without; those of `auto` are not."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function


class ChosenFunction(Body):
    """The name of a function."""

    name: str


class ChosenTool(Body):
    """The function that the model has to call."""

    type: Literal["function"]
    function: ChosenFunction


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """A JSON object."""

    type: Literal["json_object"]


class JsonSchema(Body):
    """`schema` is what the answer has to match."""

    name: Annotated[str, StringConstraints(max_length=64)] | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class TemplateSettings(Body):
    """What a request may say to the model's template, by the names of vLLM and llama-server."""

    enable_thinking: bool | None = None


class ChatRequest(Sampling):
    """/v1/chat/completions."""

    messages: Messages
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: TemplateSettings | None = None
    reasoning_format: Literal["auto", "deepseek", "none"] | None = None
    # Without effect on an answer.
    metadata: Annotated[dict[str, str], _at_most(MOST_METADATA)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class CompletionRequest(Sampling):
    """/v1/completions: the prompt is a text, token ids, or several of them."""

    prompt: Inputs
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None


class EmbeddingsRequest(Body):
    """/v1/embeddings."""

    model: str | None = None
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None
    user: str | None = None


class TokenizeRequest(Body):
    """/tokenize, as llama-server has it."""

    model: str | None = None
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(Body):
    """/detokenize."""

    model: str | None = None
    tokens: Annotated[list[Token], Field(max_length=1 << 20, fail_fast=True)]


class TemplateRequest(Body):
    """/apply-template."""

    model: str | None = None
    messages: Messages
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: TemplateSettings | None = None
