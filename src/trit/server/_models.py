"""/v1/models, and how the server is: /health and /metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from trit.runtime.sample import SamplerSettings
from trit.server._documents import ErrorBody, refusals
from trit.server._errors import unavailable
from trit.server._metrics import CONTENT_TYPE
from trit.server._service import Service
from trit.server._shelf import Entry


@dataclass(frozen=True)
class Sampling:
    """What is used where a request says nothing else."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float


@dataclass(frozen=True)
class Meta:
    """A loaded model: context, vocabulary, bytes of weights and of the cache, idle seconds, and its
    own settings of the sampler."""

    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    weight_bytes: int
    cache_bytes: int
    requests: int
    idle_seconds: float
    sampling: Sampling


@dataclass(frozen=True)
class ModelObject:
    """A model; `state` and `meta` are of this server."""

    id: str
    created: int
    state: Literal["unloaded", "loading", "loaded"]
    meta: Meta | None
    object: Literal["model"] = "model"
    owned_by: Literal["trit"] = "trit"


@dataclass(frozen=True)
class ModelList:
    """All models."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


@dataclass(frozen=True)
class Health:
    """The server answers."""

    status: Literal["ok"] = "ok"


def router(service: Service) -> APIRouter:
    """The endpoints."""
    made = APIRouter()

    @made.get("/health", responses={403: refusals()[403], 503: {"model": ErrorBody}})
    async def health() -> Health:
        """Whether the server answers; 503 while it loads."""
        if not service.shelf.started:
            raise unavailable("The model is being loaded.")
        return Health()

    @made.get("/v1/models", responses=refusals())
    async def models() -> ModelList:
        """All models, loaded or not."""
        return ModelList([_object(entry) for entry in service.shelf.entries.values()])

    @made.get("/v1/models/{model:path}", responses=refusals())
    async def one_model(model: str) -> ModelObject:
        """A model by its name."""
        return _object(service.shelf.entry(model))

    @made.get("/metrics", response_class=PlainTextResponse, responses=refusals())
    async def metrics() -> PlainTextResponse:
        """Counters in Prometheus's text format."""
        queue = service.queue
        gauges = {
            "trit_requests_running": ("Requests that are answered now.", float(queue.running)),
            "trit_requests_waiting": ("Requests that wait for a turn.", float(queue.waiting)),
        }
        return PlainTextResponse(service.metrics.text(gauges), media_type=CONTENT_TYPE)

    return made


def _object(entry: Entry) -> ModelObject:
    meta, model = None, entry.model
    if model is not None:
        meta = Meta(
            n_ctx=model.ctx,
            n_ctx_train=model.plan.context_length,
            n_vocab=model.plan.vocab_size,
            weight_bytes=model.weight_bytes,
            cache_bytes=model.engine.cache_bytes(),
            requests=entry.users,
            idle_seconds=0.0 if entry.users else round(time.monotonic() - entry.used_at, 3),
            sampling=_sampling(model.sampling),
        )
    return ModelObject(entry.name, entry.created, entry.state, meta)


def _sampling(own: SamplerSettings) -> Sampling:
    return Sampling(own.temperature, own.top_k, own.top_p, own.min_p, own.repeat_penalty)
