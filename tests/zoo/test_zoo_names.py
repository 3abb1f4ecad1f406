"""From a reference to a model: the manifest, names, and the choice of a repository's file."""

from pathlib import Path

import pytest
from small_zoo import Shelf

from trit import zoo
from trit.errors import SourceError, UsageError
from trit.zoo import _choice, _manifest


def test_the_manifest_holds_the_first_shelf() -> None:
    models = zoo.models()
    assert models["smollm2-135m-instruct"].sha256.startswith("b179c9523d0e")
    assert models["gemma-3-270m"].sha256.startswith("a5fd3b62230a")
    assert models["qwen2.5-coder-1.5b-instruct"].sha256.startswith("cc324af070c2")
    pieces = [len(source.wheels) for model in models.values() for source in model.sources
              if isinstance(source, zoo.WheelSource)]  # fmt: skip
    assert pieces[:3] == [1, 4, 22]


@pytest.mark.parametrize("model", _manifest.models().values(), ids=lambda model: model.name)
def test_every_model_is_fully_described(model: zoo.Model) -> None:
    assert model.licence and model.licence_url.startswith("https://") and model.description
    assert bool(model.sources) != model.shipped and model.size_bytes > 0
    for source in model.sources:
        if isinstance(source, zoo.WheelSource):
            assert len({wheel.sha256 for wheel in source.wheels}) == len(source.wheels)
            assert all(len(wheel.sha256) == 64 for wheel in source.wheels)
            # Packed files hardly shrink in a wheel: sizes far apart mean a mistake in the manifest.
            total = sum(wheel.size_bytes for wheel in source.wheels)
            assert 0.9 < total / model.size_bytes < 1.1


def test_a_path_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.gguf"
    path.touch()
    assert zoo.resolve(path) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert zoo.resolve("~/mine.gguf") == path


def test_a_path_goes_before_a_zoo_name(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert zoo.resolve("tiny") == Path("tiny")


def test_unknown_names_say_what_to_do() -> None:
    with pytest.raises(SourceError, match="Did you mean smollm2-135m-instruct"):
        zoo.resolve("smollm2-135m")
    with pytest.raises(SourceError, match="no such file or folder"):
        zoo.resolve("./missing.gguf")


@pytest.mark.parametrize("reference", ["hf:", "hf:org", "hf:org/repo:", "hf:a/b/c", "hf:../x:Q8_0"])
def test_bad_hub_references(reference: str) -> None:
    with pytest.raises(UsageError, match="expected hf:org/repo"):
        _choice.split(reference)


SHARDS = [f"m-BF16-0000{n}-of-00002.gguf" for n in (1, 2)]


@pytest.mark.parametrize(
    ("names", "quant", "expected"),
    [
        (["a-Q8_0.gguf", "a-Q4_K_M.gguf"], None, "a-Q4_K_M.gguf"),
        (["a-Q8_0.gguf", "a-q4_k_m.gguf"], "Q4_K_M", "a-q4_k_m.gguf"),
        (["a-Q2_K_L.gguf", "a-Q2_K.gguf"], "Q2_K", "a-Q2_K.gguf"),
        (["a-Q3_K_S.gguf", "a-Q3_K_M.gguf"], "Q3_K", "a-Q3_K_M.gguf"),
        (["a-UD-Q4_K_M.gguf", "a-Q4_K_M.gguf"], None, "a-Q4_K_M.gguf"),
        (["sub/a-F16.gguf", "mmproj-F16.gguf"], "f16", "sub/a-F16.gguf"),
        (["only.gguf"], None, "only.gguf"),
        (["a-Q8_0.gguf", "a-Q4_K_M.gguf"], "a-Q8_0.gguf", "a-Q8_0.gguf"),
    ],
)
def test_the_file_a_quant_means(names: list[str], quant: str | None, expected: str) -> None:
    assert _choice.choose(names, quant, "hf:o/r") == _choice.Chosen((expected,), folder=False)


def test_shards_come_together_or_not_at_all() -> None:
    assert _choice.choose(SHARDS, "BF16", "hf:o/r").files == tuple(SHARDS)
    with pytest.raises(SourceError, match="expected 2 shards"):
        _choice.choose(SHARDS[1:], "BF16", "hf:o/r")


def test_a_folder_only_when_no_quant_is_named() -> None:
    names = ["config.json", "model.safetensors", "onnx/model.safetensors", "pytorch_model.bin"]
    assert _choice.choose(names, None, "hf:o/r").files == ("config.json", "model.safetensors")
    with pytest.raises(SourceError, match="no GGUF"):
        _choice.choose(names, "Q8_0", "hf:o/r")
    with pytest.raises(SourceError, match="no GGUF or safetensors file"):
        _choice.choose(["pytorch_model.bin"], None, "hf:o/r")
