"""/card: what a model is, loaded or not, and not where it lies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

import small_model
import talking_model
from server import live
from trit import cli
from trit.evaluate import card
from trit.evaluate._estimate import Estimate
from trit.runtime.model import Model

NAMES = list(small_model.arrays())


def with_card(path: Path) -> Path:
    """A talking model whose card says that one tensor lost all."""
    figure = Estimate(0.25, math.nan)
    errors = {**dict.fromkeys(NAMES, 0.5), NAMES[1]: math.inf}
    found = card.Card("00" * 32, 128, 1000, figure, figure, figure, figure, errors)
    return talking_model.write(path, found.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    paths = {"talker": live.write(folder), "carded": with_card(folder / "carded.gguf")}
    models = {name: live.opener(path) for name, path in paths.items()} | {"lost": never}
    with live.served(models, paths=paths | {"lost": folder / "lost.gguf"}) as (address, _):
        yield address


def never() -> Model:
    raise AssertionError("a card needs no loaded model")


def test_it_says_what_show_says(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = live.ask(address, "/card?model=talker").json
    cli.main(["show", str(folder / "talking.gguf"), "--json", "--tensors"])
    shown = json.loads(capsys.readouterr().out)
    assert found["id"] == "talker" and found["quality"] is None
    for name, fact in found.items():
        if name not in ("id", "hyper_parameters", "quality"):
            assert fact == shown[name], name
    for name, fact in found["hyper_parameters"].items():
        assert fact == shown[name]


def test_no_path_gets_out(address: str, folder: Path) -> None:
    for name in ("talker", "carded", "lost"):
        assert folder.name not in live.ask(address, f"/card?model={name}").body


def test_the_quality_card_of_a_model_that_is_not_loaded(address: str) -> None:
    found = live.ask(address, "/card?model=carded").json
    quality = found["quality"]
    assert (quality["kld"], quality["kld_stderr"], quality["tokens"]) == (0.25, None, 1000)
    errors = dict(zip([t["name"] for t in found["tensors"]], quality["tensor_errors"], strict=True))
    assert errors.pop(NAMES[1]) is None and set(errors.values()) == {0.5}
    state = {one["id"]: one["state"] for one in live.ask(address, "/v1/models").json["data"]}
    assert state["carded"] == "unloaded"


def test_what_has_no_card(address: str) -> None:
    assert live.ask(address, "/card?model=nobody").error["code"] == "model_not_found"
    assert live.ask(address, "/card").error["param"] == "model"  # there are several
    got = live.ask(address, "/card?model=lost")
    assert got.status == 500 and "'lost'" in got.error["message"]


def test_a_server_that_does_not_know_where_its_models_lie(folder: Path) -> None:
    with live.served({"talker": live.opener(folder / "talking.gguf")}) as (bare, _):
        assert live.ask(bare, "/card").status == 404
