"""--cache-type: what keys and values are kept in, with llama.cpp's names for it too."""

from typing import Annotated

import typer

from trit.errors import UsageError

CacheTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-type",
        "--cache-type-k",
        "--cache-type-v",
        "-ctk",
        "-ctv",
        metavar="f16|q8_0|f32",
        show_default=False,
        help="What keys and values alike are kept in; default: f16.",
    ),
]


def cache_type(given: list[str] | None) -> str:
    """The one type that was asked for; UsageError for two, since keys and values share one."""
    if len(set(given or ())) > 1:
        raise UsageError(
            f"--cache-type {' and '.join(given or ())}: keys and values are kept in one type."
        )
    return given[0] if given else "f16"
