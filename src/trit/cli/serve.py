"""`trit serve`: models behind OpenAI's HTTP interface, until Ctrl-C.

stdout stays empty; the address and, with -v, a line for each request go to stderr. Flags are
llama-server's where it has them.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import (
    BatchSize,
    CacheTypes,
    Host,
    ModelOption,
    Port,
    Repack,
    Threads,
    cache_type,
)
from trit.errors import InvalidFileError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from trit.runtime.model import Model


def command(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Folders, GGUF files or model names.", show_default=False
        ),
    ] = None,
    model_option: ModelOption = None,
    alias: Annotated[
        str | None, typer.Option("--alias", "-a", metavar="NAME", help="What requests call MODEL.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="KEY", help="Wanted of requests; repeatable, or K1,K2."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="Keys, one a line.")
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            "--ctx-size",
            "--ctx",
            "-c",
            metavar="N",
            min=0,
            show_default=False,
            help="Context of each request; 0: the model's own. Default: 4096 or the model's own.",
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", "-np", metavar="N", help="Requests answered together.")
    ] = 8,
    queue: Annotated[
        int, typer.Option("--queue", metavar="N", help="Requests that may wait; more get 503.")
    ] = 64,
    n_predict: Annotated[
        int,
        typer.Option(
            "--n-predict", "--predict", "-n", metavar="N", help="Most tokens of an answer; -1: any."
        ),
    ] = -1,
    threads: Threads = None,
    batch: BatchSize = None,
    draft_max: Annotated[
        int | None,
        typer.Option(
            "--draft-max", "--draft", min=0, metavar="N", help="Tokens guessed ahead; default: 15."
        ),
    ] = None,
    cache: CacheTypes = None,
    repack: Repack = None,
    timeout: Annotated[
        float, typer.Option("--timeout", "-to", metavar="S", help="Seconds for a request, in all.")
    ] = 3600.0,
    max_body: Annotated[
        str, typer.Option("--max-body", metavar="SIZE", help="Most bytes of a request.")
    ] = "8MiB",
    sleep_idle: Annotated[
        float | None,
        typer.Option(
            "--sleep-idle-seconds", metavar="S", help="Unload a model unused for so long."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each request; never its text.")
    ] = False,
) -> None:
    """Serve models over OpenAI's HTTP interface.

    POST /v1/chat/completions and /v1/completions, GET /v1/models, /health and /metrics. The first
    model is loaded at the start, the others when a request names them. Ctrl-C stops.
    """
    from trit.cli._terminal import note
    from trit.sizes import parse_size

    try:
        from trit.server.run import serve
        from trit.server.settings import Settings
    except ImportError as error:
        raise UnsupportedError(
            f"serving needs {error.name or 'fastapi and uvicorn'}: pip install 'trit[serve]'."
        ) from None
    if n_predict < -1 or n_predict == 0:
        raise UsageError(f"-n {n_predict}: expected 1 or more, or -1 for no limit.")
    settings = Settings(
        host=host,
        port=port,
        api_keys=tuple(_keys(api_key or (), api_key_file)),
        parallel=parallel,
        queue=queue,
        n_predict=None if n_predict < 0 else n_predict,
        body_bytes=parse_size(max_body, "--max-body"),
        timeout=timeout,
        sleep_idle_seconds=sleep_idle,
        verbose=verbose,
    )
    load = _loader(ctx, threads, batch, draft_max, cache_type(cache), repack, parallel)
    paths = _resolved([*(model or ()), *([model_option] if model_option else ())], alias)
    _log()
    note(f"models: {', '.join(paths)}")
    try:
        serve(
            {name: lambda path=path: load(path) for name, path in paths.items()},  # type: ignore[misc]
            settings,
            lambda address: note(
                f"listening on {address}, a page for browsers\nOpenAI's base URL is {address}/v1"
            ),
            paths,
        )
    except KeyboardInterrupt:
        _leave_if_loading(130)
        raise
    _leave_if_loading(0)


def _leave_if_loading(code: int) -> None:
    """End the process while a model is being loaded: its thread has nothing to finish, and Python
    would not survive that it goes on."""
    from trit.cli._terminal import note
    from trit.server._shelf import is_loading

    if is_loading():
        note("trit: stopped while a model was being loaded")
        sys.stdout.flush()
        os._exit(code)


def _loader(
    ctx: int | None,
    threads: int | None,
    batch: int | None,
    draft_max: int | None,
    cache: str,
    repack: bool | None,
    parallel: int,
) -> "Callable[[Path], Model]":
    """What opens a model by its path, with the settings of the flags."""
    from trit.cli._terminal import note, size, warn
    from trit.runtime.model import DRAFT_MAX, load
    from trit.runtime.scheduler import PASS_ROWS

    def open_model(path: Path) -> "Model":
        model = load(
            path, ctx, threads, batch=batch or PASS_ROWS,
            draft_max=DRAFT_MAX if draft_max is None else draft_max, parallel=parallel,
            cache_type=cache, repack=repack, chat=True,
        )  # fmt: skip
        model.tokenizer  # noqa: B018 - read now, not while the first request waits
        note(f"{path}: loaded, {size(model.weight_bytes)} of weights, context {model.ctx:,}")
        if "trit.synth.shape" in model.metadata:
            warn(f"{path}: the weights are random ('trit synth'); the answers mean nothing")
        return model

    return open_model


def _resolved(references: list[str], alias: str | None) -> dict[str, Path]:
    """The paths of all models by the names that requests give; pulls what is not here."""
    from trit.cli._resolve import resolve

    if not references:
        raise UsageError("no model: trit serve MODEL. 'trit list' names some.")
    if alias is not None and len(references) > 1:
        raise UsageError("--alias names one model; several are given.")
    paths: dict[str, Path] = {}
    for reference in references:
        path = Path(reference).expanduser()
        name = alias or (_stem(path) if path.exists() else reference)
        if name in paths:
            raise UsageError(f"two models are called {name}: rename a file, or leave one out.")
        paths[name] = path if path.exists() else resolve(reference)
    return paths


def _stem(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _keys(given: Sequence[str], path: Path | None) -> list[str]:
    """Those of the flags, several in one behind commas as for llama-server, and of the file."""
    keys = [key.strip() for flag in given for key in flag.split(",")]
    if path is None:
        return keys
    try:
        found = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFileError(path, "", f"expected keys, one a line; {error}.") from None
    if not found:
        raise InvalidFileError(path, "", "expected keys, one a line; it has none.")
    return [*keys, *found]


def _log() -> None:
    """What the server has to say goes to stderr as it is."""
    import logging

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("trit.server").setLevel(logging.INFO)
