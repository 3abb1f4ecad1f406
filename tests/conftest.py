"""What every test may ask for: models of the zoo, shared data, the machine's instruction sets.

A test that needs a model or a data file this machine lacks is skipped and says why. A test that
takes `isa` runs once per instruction set of the machine; a machine without any fails.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

# Read before any test points XDG_CACHE_HOME elsewhere.
CACHE_HOME = os.environ.get("XDG_CACHE_HOME")

# Started in the background of a script, this process ignores Ctrl-C, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def zoo_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`zoo_model(name)`: the path of a model of the local zoo cache; skips when it is not there."""
    from trit import zoo

    def find(name: str) -> Path:
        with monkeypatch.context() as patch:
            if CACHE_HOME is None:
                patch.delenv("XDG_CACHE_HOME", raising=False)
            else:
                patch.setenv("XDG_CACHE_HOME", CACHE_HOME)
            path = zoo.local(name)
        if path is None:
            pytest.skip(f"{name} is not in the local zoo cache ('trit pull {name}')")
        return path

    return find


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data(relative)`: a file of the folder TRIT_SHARED_DATA; skips when absent."""
    folder = os.environ.get("TRIT_SHARED_DATA")

    def find(relative: str) -> Path:
        if not folder:
            pytest.skip(f"needs the shared data {relative}: set TRIT_SHARED_DATA to its folder")
        path = Path(folder) / relative
        if not path.exists():
            pytest.skip(f"no shared data {relative} in {folder} (TRIT_SHARED_DATA)")
        return path

    return find


def machine_isas() -> list[str]:
    """The instruction sets the built core can run here, the best first."""
    from trit import _core

    isas = list(_core.isas())
    assert isas, "the core offers no instruction set on this machine"
    return isas


@pytest.fixture(scope="session")
def isas() -> list[str]:
    """Every instruction set of this machine, the best first."""
    return machine_isas()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "unsanitized: left out by scripts/sanitize, where it would find nothing of its own: what "
        "takes its time is a judge outside the core, or it runs programs that are not sanitized",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take `isa` once per instruction set of the machine."""
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", machine_isas())
