"""`trit quantize --fit` and its like: what is said, and that the flags do not mix."""

import json
from pathlib import Path

import pytest

import text_model
from trit import cli


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """The command but for its budget."""
    model = text_model.write(tmp_path / "model.gguf")
    text = tmp_path / "text.txt"
    text.write_text(text_model.TEXT * 12)
    out = tmp_path / "out.gguf"
    return ["quantize", str(model), str(out), "--calibration", str(text), "-t", "1"]


def test_dry_run_explains_in_80_columns(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--bpw", "4.5", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "<- this file" in said.out
    assert "blk.0" not in said.out  # grouped by kind
    for words in ("ffn_down", "attn_q", "token_embd", "predicted KLD", "possible:"):
        assert words in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    assert "sensitivities in" in said.err
    assert not Path(arguments[2]).exists()


def test_json_tells_of_every_tensor(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--fit", "700KB", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bytes"] == Path(arguments[2]).stat().st_size <= 700_000
    made = answer["budget"]["allocation"]
    types = {tensor["name"]: tensor["type"] for tensor in answer["tensors"]}
    assert {name: entry["format"] for name, entry in made.items()}.items() <= types.items()
    assert len(made) == 15
    shares = [entry["share"] for entry in made.values()]
    assert sum(shares) == pytest.approx(1)
    sizes = [point["bytes"] for point in answer["budget"]["frontier"]]
    assert len(set(sizes)) >= 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--fit", "700KB", "--type", "Q4_K_M"], "a type"),
        (["Q4_K_M", "--bpw", "4"], "a type"),
        (["--bpw", "4", "--fit", "1MB"], "one budget"),
        (["--bpw", "4", "--pure"], "--pure"),
        (["--ctx", "64"], "--fit-ram"),
        (["--bpw", "4", "--to", "awq"], "--to"),
        (["--fit", "10KB"], "smallest file"),
    ],
)
def test_refused(
    more: list[str], words: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, *more]) == 2
    assert words in capsys.readouterr().err
