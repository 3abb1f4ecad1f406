"""Storage: one module per GGUF type, the numpy reference of its byte layout.

The folder is the registry: every module here whose name does not begin with an underscore defines
one `FORMAT`, under the type's GGUF name in lower case. Nothing else lists them. The scan runs at
the first question, so that importing this package stays cheap.
"""

import importlib
import pkgutil
from functools import cache

from trit.errors import UnsupportedError
from trit.formats._format import Format, Unpacked

__all__ = ["Format", "Unpacked", "all", "by_type", "get"]


@cache
def all() -> dict[str, Format]:
    """Every format by name, in the order of their ggml type numbers."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"]
    formats: list[Format] = [importlib.import_module(f"{__name__}.{name}").FORMAT for name in names]
    return {format.name: format for format in sorted(formats, key=lambda each: each.ggml_type)}


@cache
def _types() -> dict[int, Format]:
    return {format.ggml_type: format for format in all().values()}


def get(name: str) -> Format:
    """The format of that name, in any case ("q4_k", "Q4_K"); UnsupportedError if there is none."""
    format = all().get(name.lower())
    if format is None:
        raise UnsupportedError(f"no format is called {name!r}. There are: {', '.join(all())}.")
    return format


def by_type(ggml_type: int) -> Format:
    """The format with that number in GGUF files; UnsupportedError if trit does not read it."""
    format = _types().get(ggml_type)
    if format is None:
        raise UnsupportedError(
            f"tensor type {ggml_type} is not one that trit reads.\n"
            "It was removed from GGUF, or is newer than this trit: convert the model again, "
            "or update trit."
        )
    return format
