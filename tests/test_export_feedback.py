"""Folders rounded with error feedback, against the same done by hand with the rows of a GGUF."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tiny models need torch (dev extra)")
pytest.importorskip("transformers", reason="makes the tiny models (dev extra)")
sys.path.insert(0, str(Path(__file__).parent / "archs"))

from tiny import Variant, tiny_model

from trit import calibrate, cli, formats
from trit.errors import UsageError
from trit.export import export
from trit.files import checkpoint, safetensors
from trit.files._tensor import Tensor
from trit.files.source import open_source
from trit.job.feedback import CHUNKS, SINKS, spread
from trit.quantizers import gptq

BITS, GROUP = 3, 32


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The rain in Spain falls mainly on the plain, says Jane. " * 100)
    return path


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2", "phi3"])
def test_each_layer_is_rounded_on_what_the_rounded_ones_before_give(
    arch: str, text: Path, tmp_path: Path
) -> None:
    model = tiny_model(arch, tmp_path / "model", Variant(tokenizer=True, vocab=320))
    out = tmp_path / "out"
    result = export(
        model, out, "compressed-tensors", bits=BITS, group_size=GROUP, quantizer="gptq",
        calibration=text,
    )  # fmt: skip
    changed, f32 = 0, formats.get("f32")
    source = open_source(model)
    with checkpoint.open(out) as made:
        tokens = spread(calibrate.data(source, text).tokens, CHUNKS)
        for layer in calibrate.walk(source, tokens, gram=True, sinks=SINKS):
            done = {}
            for name in calibrate.weights(calibrate.plan_for(source), layer.index):
                inputs = layer.of(name)
                assert inputs.gram is not None
                share = gptq.damping(len(inputs.gram[0]), int(inputs.counts[0]))
                factor = gptq.factorize(inputs.gram[0], share)
                weights = source.tensors[name].decode()
                choice = gptq.quantize_groups(weights, BITS, GROUP, factor)
                values = np.ascontiguousarray(choice.grid.weights())
                found = made.tensors[name].decode()
                assert np.isclose(values, found, atol=1e-6).mean() > 0.99, name
                done[name] = Tensor(name, values.shape, f32, values.view(np.uint8))
                changed += choice.fed_back
            layer.replace(done)
    source.close()
    assert result.changed == changed > 0
    assert result.weighted == result.linears


def test_the_command(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("llama", tmp_path / "model", Variant(tokenizer=True, vocab=320))
    out = tmp_path / "out"
    words = ["quantize", str(model), str(out), "--to", "awq", "--group-size", "32", "--json"]
    assert cli.main([*words, "--quantizer", "gptq"]) == 2
    assert "they go with --calibration" in capsys.readouterr().err
    assert cli.main([*words, "--quantizer", "gptq", "--calibration", str(text)]) == 0
    answer = capsys.readouterr()
    assert 0 < json.loads(answer.out)["changed"] <= json.loads(answer.out)["linears"]
    assert "error feedback made" in answer.err
    with safetensors.open(out) as file:
        recipe = json.loads(file.metadata["trit.recipe"])
    assert recipe["quantizer"] == "gptq" and len(recipe["texts_sha256"][0]) == 64


def test_importance_data_are_of_no_use_to_it(text: Path, tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model", Variant(tokenizer=True, vocab=320))
    data = calibrate.imatrix(model, tmp_path / "data.gguf", text)
    from trit.files import imatrix

    with pytest.raises(UsageError, match="of no use to gptq"):
        export(
            model, tmp_path / "out", "awq", group_size=32, quantizer="gptq", calibration=text,
            imatrix=imatrix.load(data.path),
        )  # fmt: skip
