"""A small study: models without weights worth the name, answers made up or by talking models."""

from __future__ import annotations

from pathlib import Path

from trit.compare.store import Store
from trit.compare.study import Answer, ModelRow, Settings

NAMES = ("heavy-f16", "middle-q4", "light-q2")


def written(
    path: Path,
    models: int = 2,
    prompts: int = 10,
    same: tuple[int, ...] = (),
    settings: Settings | None = None,
) -> Store:
    """A study with answers; on the prompts `same` all models have written the same."""
    rows = [
        ModelRow(i, NAMES[i], f"/models/{NAMES[i]}.gguf", 1000 * (3 - i), f"{i:064x}", "f16", None)
        for i in range(models)
    ]
    store = Store.create(path, settings or Settings(catch_every=0), rows)
    store.add_prompts([f"question {i}" for i in range(1, prompts + 1)])
    store.add_answers(
        [
            Answer(draw, p, "alike" if p in same else _text(draw, p), 5 + draw[0], "stop", p, 9,
                   0.1 * (1 + draw[0]), 0.5 * (1 + draw[0]), "scalar", 1)
            for draw, p in store.wanted()
        ]
    )  # fmt: skip
    return store


def _text(draw: tuple[int, int], prompt: int) -> str:
    """Of one length whoever wrote it; the letter behind the dash tells a test who did."""
    return f"answer to {prompt} - {'abc'[draw[0]]}{draw[1]}"


def author(text: str) -> int:
    """The model that wrote an answer."""
    return "abc".index(text[-2])
