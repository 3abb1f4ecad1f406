"""Whole runs, small: what they write runs in the engine and in transformers as it ran in torch."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tiny_run
import trit
from trit.errors import DoesNotFitError, TritError, UnsupportedError, UsageError
from trit.files import checkpoint, gguf
from trit.training import TrainResult, prepare, train
from trit.training import log as logs
from trit.training._folder import check_room

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("tokenizers", reason="training a tokenizer needs it (extra train)")

KLD = 1e-3  # nats: what a file may differ from the model that was trained


@pytest.fixture(scope="module")
def ternary(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run with rows that fit ternary formats."""
    folder = tmp_path_factory.mktemp("ternary")
    return train(tiny_run.write(folder, tiny_run.WIDE), threads=1)


@pytest.fixture(scope="module")
def twin(ternary: TrainResult) -> TrainResult:
    """Its float twin."""
    return train(ternary.path.with_suffix(".toml"), twin=True, threads=1)


def test_the_file_says_what_the_model_says(ternary: TrainResult) -> None:
    assert ternary.kind == "ternary" and ternary.compared == 4 * 32
    assert 0 <= ternary.kld <= KLD
    assert ternary.fallbacks == ()
    with gguf.open(ternary.gguf) as file:
        kinds = {name: tensor.format.name for name, tensor in file.tensors.items()}
        assert kinds["token_embd.weight"] == "q6_k" and kinds["blk.1.ffn_down.weight"] == "tq2_0"
        assert len(np.unique(file.tensors["blk.0.attn_q.weight"].decode())) == 3
        keys = file.metadata
    assert keys["general.architecture"] == "bitnet-b1.58" and keys["general.name"] == "Run"
    assert keys["general.license"] == keys["trit.training.licence"] == "MIT"
    assert keys["trit.training.bits_per_byte"] == ternary.bits_per_byte
    assert keys["trit.training.provenance"] == "an essay of trit's tests"
    (text,) = json.loads(str(keys["trit.training.texts"]))
    assert text["name"] == "essay.txt" and text["bytes"] == tiny_run.ESSAY.stat().st_size
    assert json.loads(str(keys["trit.training.config"]))["model.width"] == 256


def test_it_learns(ternary: TrainResult) -> None:
    steps = [each for each in logs.read(ternary.path) if each["event"] == "step"]
    assert [each["step"] for each in steps] == list(range(1, 13))
    assert [each["ternary"] for each in steps] == [False] * 3 + [True] * 9
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert steps[-1]["tokens"] == ternary.tokens == 12 * 4 * 32


def test_a_twin_is_measured_on_the_same_text(ternary: TrainResult, twin: TrainResult) -> None:
    assert twin.path.name == "run-float" and twin.kind == "float"
    assert twin.held_out_sha256 == ternary.held_out_sha256
    assert twin.parameters == ternary.parameters
    assert 0 <= twin.kld <= KLD
    with gguf.open(twin.gguf) as file:
        assert file.tensors["blk.0.ffn_up.weight"].format.name == "f16"
        assert file.metadata["general.architecture"] == "bitnet-b1.58"
        assert file.metadata["trit.training.kind"] == "float"
    assert not any(each.get("ternary") for each in logs.read(twin.path))


@pytest.mark.parametrize("kind", ["ternary", "twin"])
def test_transformers_reads_the_folder(kind: str, request: pytest.FixtureRequest) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle (dev extra)")
    if kind == "ternary":
        pytest.importorskip("accelerate", reason="transformers asks for it to read packed digits")
    result: TrainResult = request.getfixturevalue(kind)
    with torch.compiler.set_stance("force_eager"):  # it would compile for half a minute
        _check_transformers(transformers, result)


def _check_transformers(transformers: Any, result: TrainResult) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(result.folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(result.folder)
    text = tiny_run.ESSAY.read_text("utf-8")[-300:]
    with trit.load(result.gguf, threads=1) as file:
        ids = file.tokenizer.encode(text)[:32]
        assert tokenizer(text)["input_ids"][:32] == ids
    with prepare(result.path, None, False, 1) as prepared, torch.no_grad():
        session = prepared._session
        session.network.ternary = session.ternary(session.step - 1)
        rows = torch.tensor([ids])
        ours = session.network.logits(rows)[0].log_softmax(-1)
        theirs = model(rows).logits[0].log_softmax(-1)
    assert float((ours.exp() * (ours - theirs)).sum(-1).mean()) <= KLD


def test_the_folder_is_the_file(ternary: TrainResult) -> None:
    with checkpoint.open(ternary.folder) as model, gguf.open(ternary.gguf) as file:
        assert model.metadata["general.architecture"] == "bitnet-b1.58"
        name = "blk.1.attn_output.weight"
        ours, theirs = model.tensors[name].decode(), file.tensors[name].decode()
        assert np.allclose(ours, theirs, rtol=2**-11)  # units are float16 there
        assert model.metadata["general.license"] == "MIT"


def test_the_file_talks(ternary: TrainResult) -> None:
    with trit.load(ternary.gguf, threads=1) as model:
        first = model.generate("The ", max_tokens=4, temperature=0)
        assert first.text == model.generate("The ", max_tokens=4, temperature=0).text


def test_what_a_run_keeps(ternary: TrainResult) -> None:
    names = {each.name for each in ternary.path.iterdir()}
    assert {"config.toml", "run.json", "log.jsonl", "state.npz", "result.json"} <= names
    assert not any(name.endswith(".partial") for name in names)
    kept = json.loads((ternary.path / "run.json").read_text("utf-8"))
    assert kept["seed"] == 3 and kept["threads"] == 1 and kept["twin"] is False
    assert json.loads((ternary.path / "result.json").read_text("utf-8")) == ternary.to_dict() | {
        "fallbacks": []
    }
    events = [(each["event"], each["step"]) for each in logs.read(ternary.path)]
    measured = [step for event, step in events if event == "held_out"]
    assert measured == [4, 8, 12] and ("sample", 6) in events and ("sample", 12) in events


CHANGES: list[dict[str, str]] = [
    {"warmup = 2": "bf16 = true\ngradient_checkpointing = true"},
    {
        "warmup = 2": "matrices = 'adamw'\nmatrix_rate = 0.003",
        "context = 32": "context = 32\ntied = false",
    },
    {"vocab = 300": "file = 'given.json'", "[training]": 'separator = "."\n[training]'},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["bf16", "adamw, untied", "tokenizer"])
def test_other_settings(changes: dict[str, str], ternary: TrainResult, tmp_path: Path) -> None:
    for end in ("", "_config"):
        source = ternary.path / f"tokenizer{end}.json"
        (tmp_path / ("tokenizer_config.json" if end else "given.json")).write_bytes(
            source.read_bytes()
        )
    result = train(tiny_run.write(tmp_path, changes), threads=1)
    steps = [each for each in logs.read(result.path) if each["event"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    # Activations are floats in an F16 file, and bfloat16 leaves three digits in torch.
    assert result.kld < 0.05
    with gguf.open(result.gguf) as file:
        assert ("output.weight" in file.tensors) == ("context = 32" in changes)


def test_a_picture(ternary: TrainResult) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    assert ternary.plot is not None and ternary.plot.read_text("utf-8").count("<path") > 5


def test_what_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_run.write(tmp_path, {"warmup = 2": "matrix_rate = 1e38\nclip = 0\nrate = 1e38"})
    with pytest.raises(TritError, match=r"has a loss of .* Lower training.matrix_rate"):
        train(path, threads=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds other things \(thesis.txt\)"):
        train(path, tmp_path / "other", threads=1)
    with pytest.raises(UsageError, match="is a file"):
        train(path, tmp_path / "essay.txt")
    with pytest.raises(UsageError, match="expected 10001 or more"):
        train(tiny_run.write(tmp_path / "long", {"context = 32": "context = 5000"}), threads=1)
    assert not (tmp_path / "long" / "run" / "run.json").exists()
    with pytest.raises(KeyboardInterrupt):  # the advice can be followed in the same folder
        train(tiny_run.write(tmp_path / "long"), threads=1, stop=lambda: True)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="finds no GPU"):
            train(tiny_run.write(tmp_path / "gpu", {"warmup = 2": "device = 'cuda'"}), threads=1)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UnsupportedError, match="training needs torch"):
        train(path)


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_run.write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("trit.training._folder.free_memory", lambda: 1000)
        with pytest.raises(DoesNotFitError, match=r"before activations and has [0-9,]+; 1,000"):
            train(path, threads=1)
    with monkeypatch.context() as patch:  # what the weights have by now is not asked for again
        patch.setattr("trit.training._folder.free_memory", lambda: 0)
        check_room(tmp_path, memory=1000, held=1000, disk=0, device="cpu", remedy="")
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("trit.training._folder.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DoesNotFitError, match=r"the state takes .* bytes, 1,000 are free"):
        train(path, threads=1)


def test_cost(tmp_path: Path) -> None:
    with prepare(tiny_run.write(tmp_path), None, False, 1) as prepared:
        before = {key: each.clone() for key, each in prepared._session.tensors().items()}
        cost: Any = prepared.cost()
        after = prepared._session.tensors()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert all(each.grad is None for each in prepared._session.network.weights.values())
        with pytest.raises(UsageError, match="being trained by another process"):
            train(tmp_path / "run.toml", threads=1)
    assert cost.steps == 12 and cost.tokens == 12 * 4 * 32 and cost.seconds > 0
    assert (
        cost.parameters
        == 300 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32) + 2 * (3 * 32 + 64) + 32
    )
