"""Pytest plugin: the tests run on the core of TRIT_SANITIZED_CORE, not on the one installed.

Loaded by scripts/sanitize (`pytest -p sanitized_core`), whose cores live in build folders of their
own. The module is put where `from trit import _core` looks first, so the environment stays as it
is; programs that a test starts are plain ones.
"""

import importlib.util
import os
import sys
from types import ModuleType


def load() -> ModuleType:
    """The compiled module at TRIT_SANITIZED_CORE, from now on `trit._core` in this process."""
    assert "trit._core" not in sys.modules, "trit was imported before the sanitized core"
    spec = importlib.util.spec_from_file_location("trit._core", os.environ["TRIT_SANITIZED_CORE"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["trit._core"] = module
    spec.loader.exec_module(module)
    return module


load()


def pytest_collection() -> None:
    """Once the processes that run tests are there: a compiler that a test starts would not survive
    the sanitizer's runtime."""
    os.environ.pop("LD_PRELOAD", None)
