"""Sessions: resumed to the bit, and believed only where they are what they say."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import talking_model
from trit import archs
from trit.errors import InvalidFileError
from trit.runtime import sessions
from trit.runtime.model import Model, load
from trit.runtime.sessions import CacheMismatchError

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SAID = [{"role": "user", "content": "the cat and the dog " * 8}]
SHAPE: dict[str, Any] = {"llama.context_length": 1024}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf", SHAPE)


def talk(model: Model) -> tuple[list[Any], list[int]]:
    """One turn, and the ids of the conversation so far."""
    answer = model.generate(model.prompt(SAID), max_tokens=20, temperature=0).text
    said = [*SAID, {"role": "assistant", "content": answer}]
    return said, model.prompt(said)


def second(model: Model, said: list[Any]) -> Any:
    prompt = model.prompt([*said, {"role": "user", "content": "And?"}])
    return model.generate(prompt, max_tokens=30, temperature=0, logprobs=2)


@pytest.mark.parametrize("kind", ["f16", "q8_0", "f32"])
def test_resumed_to_the_bit(path: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "talk.session"
    with load(path, threads=1, cache_type=kind) as model:
        said, ids = talk(model)
        count = sessions.write(file, {"messages": said}, model, ids, KEY)
        unbroken = second(model, said)
    assert count > 100 and file.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.partial"))
    with load(path, threads=1, cache_type=kind) as model:
        head = sessions.read(file)
        assert head["messages"] == said
        assert sessions.restore(file, model, KEY) == count
        resumed = second(model, said)
        assert resumed.stats.cached_tokens >= count
        model.forget()
        again = second(model, said)
        assert again.stats.cached_tokens == 0
    assert resumed.logprobs == unbroken.logprobs == again.logprobs
    assert resumed.text == unbroken.text


def test_layers_with_a_window(tmp_path: Path) -> None:
    """Pages that were let go of are not in the file, and go on to be absent."""
    model_path = talking_model.write(tmp_path / "model.gguf", SHAPE)
    file = tmp_path / "talk.session"
    original = archs.plan

    def windowed(*arguments: Any, **named: Any) -> Any:
        plan = original(*arguments, **named)
        layers = list(plan.layers)
        layers[0] = replace(layers[0], mixer=replace(layers[0].mixer, window=48))
        return replace(plan, layers=tuple(layers))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archs, "plan", windowed)
        with load(model_path, threads=1, batch=16) as model:
            said, ids = talk(model)
            count = sessions.write(file, {}, model, ids, KEY)
            assert len(model.engine.page_bytes()) == 2
            unbroken = second(model, said)
        cache = sessions.read(file)["cache"]
        assert max(cache["first"]) > 0
        with load(model_path, threads=1, batch=16) as model:
            assert sessions.restore(file, model, KEY) == count
            resumed = second(model, said)
            assert resumed.stats.cached_tokens == count
    assert resumed.logprobs == unbroken.logprobs


@pytest.fixture
def saved(path: Path, tmp_path: Path) -> Path:
    with load(path, threads=1) as model:
        _, ids = talk(model)
        sessions.write(tmp_path / "talk.session", {"messages": []}, model, ids, KEY)
    return tmp_path / "talk.session"


def test_nothing_in_the_cache(path: Path, tmp_path: Path) -> None:
    with load(path, threads=1) as model:
        assert sessions.write(tmp_path / "s", {"a": 1}, model, [1, 2], KEY) == 0
        assert sessions.read(tmp_path / "s")["a"] == 1
        assert sessions.restore(tmp_path / "s", model, KEY) == 0


def test_another_model_machine_or_user(path: Path, tmp_path: Path, saved: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def why(model: Model, key: bytes = KEY) -> str:
        with pytest.raises(CacheMismatchError) as caught:
            sessions.restore(saved, model, key)
        assert model.engine.cache_pages() == 0
        return str(caught.value)

    with load(path, threads=1) as model:
        assert "another user" in why(model, OTHER_KEY)
        with monkeypatch.context() as patch:
            patch.setattr(sessions, "build", lambda: "other")
            assert "another build" in why(model)
    with load(path, threads=1, cache_type="q8_0") as model:
        assert "--cache-type f16, here it is q8_0" in why(model)
    with load(path, threads=1, ctx=64) as model:
        assert "the context only 64" in why(model)
    other = talking_model.write(tmp_path / "other.gguf", {**SHAPE, "general.name": "Other"})
    with load(other, threads=1) as model:
        assert "another model" in why(model)


def test_damaged_files(path: Path, saved: Path) -> None:
    """Every part of the head, cuts and flipped bits: a reason, and an empty cache."""
    raw = saved.read_bytes()
    line, rest = raw.split(b"\n", 1)
    head = json.loads(line)
    damages: list[bytes] = [raw[:-1], raw + b"x", raw[: len(line) + 1], line + b"\n" + rest[1:]]
    for at in range(len(line) + 1, len(raw), len(raw) // 40):
        damages.append(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    wrong: list[Any] = [None, -1, [], [-1], [1 << 70], [1.5], "x", {}, True, [[1]], list(range(9))]
    for key in head["cache"]:
        damages += [
            json.dumps({**head, "cache": {**head["cache"], key: one}}).encode() + b"\n" + rest
            for one in wrong
        ]
    damages += [json.dumps({**head, "cache": one}).encode() + b"\n" + rest for one in wrong[1:]]
    with load(path, threads=1) as model:
        for damaged in damages:
            saved.write_bytes(damaged)
            with pytest.raises(CacheMismatchError):
                sessions.restore(saved, model, KEY)
            assert model.engine.cache_pages() == 0
        for damaged in (b"", b"{}", b"\xff\n", b'{"trit_chat": 1}\n', b"[" * 100_000):
            saved.write_bytes(damaged)
            with pytest.raises(InvalidFileError, match="session"):
                sessions.read(saved)


def test_whole_or_absent(path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with load(path, threads=1) as model, pytest.raises(OSError, match="No space"):
        sessions.write(saved, {}, model, talk(model)[1], KEY)
    assert saved.read_bytes() == before and not list(saved.parent.glob("*.partial"))
