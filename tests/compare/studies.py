"""A small study: models without weights worth the name, answers made up or by talking models."""

from __future__ import annotations

from pathlib import Path

from trit.compare.store import Store
from trit.compare.study import Answer, Draw, ModelRow, Settings

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
        [answer(draw, p, "alike" if p in same else _text(draw, p)) for draw, p in store.wanted()]
    )
    return store


def answers(store: Store, prompt: int) -> list[Answer]:
    """One of each model, to a prompt of a voter's own."""
    draws = [(model.id, 0) for model in store.models]
    return [answer(draw, prompt, _text(draw, prompt)) for draw in draws]


def answer(draw: Draw, prompt: int, text: str) -> Answer:
    """The lighter a model, the longer it took here."""
    seconds = 0.1 * (1 + draw[0]), 0.5 * (1 + draw[0])
    return Answer(draw, prompt, text, 5 + draw[0], "stop", prompt, 9, *seconds, "scalar", 1)


def _text(draw: tuple[int, int], prompt: int) -> str:
    """Of one length whoever wrote it; the letter behind the dash tells a test who did."""
    return f"answer to {prompt} - {'abc'[draw[0]]}{draw[1]}"


def author(text: str) -> int:
    """The model that wrote an answer."""
    return "abc".index(text[-2])
