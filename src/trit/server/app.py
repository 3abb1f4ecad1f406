"""The application: routes over a service, errors in shape, models loaded while it already listens.

app = create_app({"smollm2": lambda: trit.load("smollm2.gguf", parallel=8)}, Settings())
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from trit.compare import Asking, Voting
from trit.runtime.model import Model
from trit.server import (
    _asking,
    _card,
    _chat,
    _compare,
    _completions,
    _embeddings,
    _models,
    _page,
    _texts,
)
from trit.server._errors import ApiError, of_status, of_validation
from trit.server._gate import Gate
from trit.server._metrics import Metrics
from trit.server._service import Service
from trit.server.settings import Settings

log = logging.getLogger("trit.server")
OnFailure = Callable[[BaseException], None]


def create_app(
    models: Mapping[str, Callable[[], Model]],
    settings: Settings,
    on_failure: OnFailure | None = None,
    paths: Mapping[str, Path] | None = None,
) -> FastAPI:
    """The application.

    models      what opens a model, by the name that requests give; the first is opened at once, the
                others when they are asked for
    on_failure  told when the first model cannot be opened
    paths       where the models lie, for their cards; what is not named has none
    """
    service = Service(dict(models), settings, dict(paths or {}))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.open()
        starting = asyncio.create_task(_start(service, on_failure))
        try:
            yield
        finally:
            starting.cancel()
            await service.close()

    app = FastAPI(
        title="trit", summary="OpenAI's interface to local models", lifespan=lifespan,
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.state.service = service
    parts = (_chat, _completions, _embeddings, _texts, _models, _card)
    routers = [part.router(service) for part in parts]
    for router in [*routers, _page.router(routers)]:
        app.include_router(router)
    app.add_middleware(Gate, settings=settings, metrics=service.metrics)
    _shape_errors(app)
    return app


def create_study_app(voting: Voting, settings: Settings, asking: Asking | None = None) -> FastAPI:
    """The application of a blind test: the page and /compare. No model is named; `asking` opens
    them to answer prompts of voters' own, None: there are none."""
    app = FastAPI(
        title="trit", summary="A blind test", docs_url=None, redoc_url=None, redirect_slashes=False
    )
    routers = [_compare.router(voting, asking)]
    if asking is not None:
        routers.append(_asking.router(asking, settings.queue))
    for part in (*routers, _page.router(routers)):
        app.include_router(part)
    app.add_middleware(Gate, settings=settings, metrics=Metrics())
    _shape_errors(app)
    return app


async def _start(service: Service, on_failure: OnFailure | None) -> None:
    try:
        await service.shelf.start()
    except Exception as error:
        if on_failure is None:
            log.error("the first model cannot be loaded: %s", error)
        else:
            on_failure(error)


def _shape_errors(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_validation(error.errors(), error.body).response()

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        shaped = of_status(error.status_code, str(error.detail))
        shaped.headers.update(error.headers or {})
        return shaped.response()

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)
