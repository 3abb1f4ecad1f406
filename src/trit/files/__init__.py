"""DISK: named tensors in files. Reading is lazy and checks every byte; writing is atomic.

    gguf.py         GGUF files and their shards, read and written
    safetensors.py  Hugging Face's safetensors files and folders, read
    checkpoint.py   either of the two, looking the same

The submodules are imported when first touched, so that `import trit` stays fast.
"""

from importlib import import_module
from types import ModuleType

_MODULES = ("checkpoint", "gguf", "safetensors")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
