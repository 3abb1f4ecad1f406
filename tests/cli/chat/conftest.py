"""A chat on a pseudo-terminal, with a folder of its own for sessions and history."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from running import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, **environment: str) -> Terminal:
        opened.append(Terminal(*arguments, XDG_STATE_HOME=str(tmp_path / "state"), **environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
