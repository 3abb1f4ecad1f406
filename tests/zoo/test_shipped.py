"""The model that comes with trit is there, is the one the manifest names, and runs offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trit
from trit import cli, zoo
from trit.errors import SourceError, UsageError
from trit.files import gguf
from trit.zoo import _manifest

MOST_BYTES = 8 << 20
MODEL = zoo.models()[zoo.OWN]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, nothing pulled; the empty folder where a cache would be."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def test_it_is_the_one_the_manifest_names(offline: Path) -> None:
    path = zoo.resolve(zoo.OWN)
    assert path == zoo.pull(zoo.OWN) == zoo.local(zoo.OWN)
    assert path.stat().st_size == MODEL.size_bytes <= MOST_BYTES
    zoo.verify(path, MODEL.sha256)  # the hash, and no Inf or NaN
    assert path.with_suffix(".md").is_file(), "its card"


def test_it_is_ternary_in_rows_of_whole_blocks() -> None:
    with gguf.open(zoo.resolve(zoo.OWN)) as file:
        layers = [each for name, each in file.tensors.items()
                  if name.startswith("blk.") and len(each.shape) == 2]  # fmt: skip
        assert len(layers) == 7 * file.metadata["bitnet-b1.58.block_count"]
        for tensor in layers:
            assert tensor.format.name == "tq2_0"
            assert tensor.shape[-1] % 256 == 0
        keys = file.metadata
    assert keys["trit.training.kind"] == "ternary"
    assert keys["trit.training.licence"] == keys["general.license"] == MODEL.licence
    assert "SmolLM2" in str(keys["trit.training.provenance"])


def test_its_card_has_the_figures_of_the_file() -> None:
    path = zoo.resolve(zoo.OWN)
    card = path.with_suffix(".md").read_text("utf-8")
    with gguf.open(path) as file:
        keys = file.metadata
    assert f"{keys['trit.training.bits_per_byte']:.4f}" in card
    assert f"{keys['trit.training.parameters']:,}" in card
    assert f"{keys['trit.training.steps']:,}" in card
    (text,) = json.loads(str(keys["trit.training.texts"]))
    assert f"{text['bytes']:,}" in card and text["sha256"] in card


def test_it_tells_a_story(offline: Path) -> None:
    with trit.load(zoo.OWN, threads=1) as model:
        answer = model.generate("Once upon a time", seed=0)
    assert answer.finish_reason == "stop", "a story has an end"
    assert answer.text.isascii() and len(answer.text.split()) > 40


def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trit", "run", *arguments],
        input="" if stdin is None else stdin,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=60,
    )


def test_run_without_a_model_answers_offline(offline: Path) -> None:
    begun = run("-p", "Once upon a time", "--seed", "1", "-n", "20", "-t", "1")
    assert begun.returncode == 0 and begun.stdout.strip()
    assert begun.stderr.splitlines()[0].startswith(f"no MODEL: {zoo.OWN}, a toy")
    piped = run("--seed", "1", "-n", "20", "-t", "1", stdin="Once upon a time\n")
    named = run(zoo.OWN, "-p", "Once upon a time", "--seed", "1", "-n", "20", "-t", "1")
    assert begun.stdout == piped.stdout == named.stdout
    assert "no MODEL" not in named.stderr
    assert not list(offline.iterdir()), "nothing was written"


def test_run_without_a_model_or_a_prompt_tells_a_story(offline: Path) -> None:
    told = run("--seed", "0", "--json", "-t", "1")
    assert told.returncode == 0
    answer = json.loads(told.stdout)
    assert answer["finish_reason"] == "stop" and answer["prompt_tokens"] == 1
    assert answer["model"] == str(zoo.resolve(zoo.OWN))
    # A model that is named is not made to talk.
    silent = run(zoo.OWN, "--json")
    assert silent.returncode == 2 and "no prompt" in silent.stderr
    assert run("nothing-like-it", "-p", "x").returncode == 1
    assert run("-cnv", "-p", "x").returncode != 0, "it has no chat template"


def test_it_is_listed_and_stays(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(zoo.OWN))
    assert "  yes   MIT" in row and "comes with trit" in row
    assert cli.main(["list", "--json"]) == 0
    entries = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert [name for name, each in entries.items() if each["shipped"]] == [zoo.OWN]
    assert entries[zoo.OWN]["pulled"] is True
    with pytest.raises(UsageError, match="is part of trit"):
        zoo.remove(zoo.OWN)
    assert zoo.local(zoo.OWN) is not None


def test_a_damaged_one_is_refused(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = offline / "shipped"
    folder.mkdir()
    copy = folder / MODEL.file
    shutil.copyfile(zoo.resolve(zoo.OWN), copy)
    raw = bytearray(copy.read_bytes())
    raw[-1] ^= 1
    copy.write_bytes(raw)
    monkeypatch.setattr(_manifest, "SHIPPED", folder)
    with pytest.raises(
        SourceError, match=r"missing or not the one of sha256 .* Install trit again"
    ):
        zoo.resolve(zoo.OWN)
    copy.unlink()
    with pytest.raises(SourceError, match="Install trit again"):
        zoo.resolve(zoo.OWN)
