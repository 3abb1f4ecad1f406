"""/card: what a model is, loaded or not: `trit show --json --tensors` without the path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from trit.describe import DescribedTensor, Description, Type, describe
from trit.errors import TritError
from trit.evaluate.card import Card
from trit.files import checkpoint
from trit.server._documents import refusals
from trit.server._errors import ApiError
from trit.server._service import Service, in_thread


@dataclass(frozen=True)
class Quality:
    """The quality card of a file: what it lost against its source, each figure with its standard
    error. KLD is in nats, `same_top` a fraction; measured on `tokens` of a text, in windows of
    `ctx`. `tensor_errors`: |W' − W| / |W| of each tensor, in the order of `tensors`."""

    text_sha256: str
    ctx: int
    tokens: int
    kld: float | None
    kld_stderr: float | None
    ppl: float | None
    ppl_stderr: float | None
    ppl_source: float | None
    ppl_source_stderr: float | None
    same_top: float | None
    same_top_stderr: float | None
    tensor_errors: list[float | None]


@dataclass(frozen=True)
class ModelCard:
    """A model by its name here; what it does not state is null. Shapes have the slowest dimension
    first. `hyper_parameters`: a number, or one for each layer."""

    id: str
    name: str | None
    kind: str
    architecture: str | None
    parameters: int
    tensor_bytes: int
    file_bytes: int | None
    bits_per_weight: float | None
    quantization: str | None
    hyper_parameters: dict[str, int | list[int] | None]
    types: list[Type]
    tokenizer: dict[str, str | int | None]
    licence: str | None
    recipe: str | None
    source_sha256: str | None
    made_by: str | None
    quality: Quality | None
    tensors: list[DescribedTensor]


def router(service: Service) -> APIRouter:
    """The endpoint."""
    made = APIRouter()

    @made.get("/card", responses=refusals())
    async def card(model: str | None = None) -> ModelCard:
        """What a model is: parameters, types, licence, quality, and the bits of each tensor."""
        name = service.shelf.entry(model).name
        path = service.paths.get(name)
        if path is None:
            raise ApiError(404, f"The server has no card of {name!r}.", param="model")
        found: Description = await in_thread(lambda: _read(name, path))
        return _card(name, found)

    return made


def _read(name: str, path: Path) -> Description:
    """Not the message of an error, which names the path."""
    try:
        with checkpoint.open(path) as opened:
            return describe(opened)
    except (TritError, OSError):
        problem = f"The file of {name!r} cannot be read any more; it was replaced or is damaged."
        raise ApiError(500, problem, kind="server_error") from None


def _card(name: str, found: Description) -> ModelCard:
    return ModelCard(
        id=name,
        name=found.name,
        kind=found.kind,
        architecture=found.architecture,
        parameters=found.parameters,
        tensor_bytes=found.tensor_bytes,
        file_bytes=found.file_bytes,
        bits_per_weight=found.bits_per_weight,
        quantization=found.quantization,
        hyper_parameters=dict(found.hyper_parameters),
        types=list(found.types),
        tokenizer=dict(found.tokenizer),
        licence=found.licence,
        recipe=found.recipe,
        source_sha256=found.source_sha256,
        made_by=found.made_by,
        quality=None if found.card is None else _quality(found.card),
        tensors=list(found.tensors),
    )


def _quality(card: Card) -> Quality:
    facts = card.to_dict()
    errors = facts.pop("tensor_errors").values()
    return Quality(
        **{name: _finite(fact) for name, fact in facts.items()},
        tensor_errors=[_finite(error) for error in errors],
    )


def _finite(fact: Any) -> Any:
    """JSON has no infinity, and no NaN."""
    return fact if not isinstance(fact, float) or math.isfinite(fact) else None
