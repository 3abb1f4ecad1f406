"""`trit imatrix`, and what `trit quantize --calibration` makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest

import text_model
import trit
from trit.cli import main
from trit.files import gguf, imatrix


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text_model.TEXT * 3, encoding="utf-8")
    return path


def test_json(model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    flags = ["--ctx", "64", "--chunks", "4", "-t", "2", "--process-output", "--exact", "--json"]
    assert main(["imatrix", str(model), "--text", str(text), "-o", str(out), *flags]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["chunks"], answer["ctx"], answer["tokens"]) == (4, 64, 256)
    assert (answer["entries"], answer["threads"], answer["exact"]) == (15, 2, True)
    assert answer["texts"][0]["name"] == str(text) and answer["unseen_experts"] == {}
    assert answer["silent_columns"] == {}
    expected = trit.imatrix(
        model, tmp_path / "api.gguf", text, ctx=64, chunks=4, output=True, exact=True
    )
    assert expected.path.read_bytes() == out.read_bytes()


def test_text_for_people(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, gram = tmp_path / "out.gguf", tmp_path / "gram.gguf"
    arguments = ["-m", str(model), "-f", str(text), "-o", str(out), "-c", "64", "--gram", str(gram)]
    assert main(["imatrix", *arguments]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"{out}: importance data of 14 tensors"
    assert lines[1].startswith(f"measured on {text} (sha256 ") and "chunks of 64" in lines[1]
    assert lines[2] == f"{gram}: Gram matrices" and "tokens/s" in lines[3]
    assert said.err == ""
    assert gguf.open(gram, model=False).metadata["general.type"] == "trit.gram"


def test_remarks_and_progress(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    arguments = ["imatrix", str(model), "-f", str(short), "-o", str(tmp_path / "o.gguf"), "--jsonl"]
    assert main([*arguments, "-c", "64"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith("trit: warning: the text has 12 tokens") for line in said)
    events = [json.loads(line) for line in said if line.startswith("{")]
    assert events[-1]["what"] == "measuring" and events[-1]["unit"] == "tokens"
    assert events[-1]["done"] == events[-1]["total"] == 12


def test_a_long_job_says_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trit.cli import _measuring

    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with _measuring.Measuring() as progress:
        for done in range(0, 50, 10):
            progress("measuring", done, 1000)
            now[0] += 1.5
        progress("short", 0, 10)
        now[0] += 3
        progress("short", 9, 10)
    said = capsys.readouterr().err
    assert said.count("measuring: about 2 minutes") == 1 and "short: about" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no model"),
        (["model.gguf"], 2, "no output: trit imatrix model.gguf -o OUT.gguf"),
        (["model.gguf", "-f", "absent.txt", "-o", "o.gguf"], 1, "absent.txt"),
        (["model.gguf", "-f", "empty.txt", "-o", "o.gguf"], 2, "text is empty"),
        (["model.gguf", "-f", "text.txt", "-o", "model.gguf"], 2, "is an input"),
        (["model.gguf", "-f", "text.txt", "-o", "text.txt"], 2, "is an input"),
        (["model.gguf", "-f", "text.txt", "-o", "o.gguf", "--gram", "text.txt"], 2, "is an input"),
        (["model.gguf", "-f", "text.txt", "-o", "o.gguf", "--gram", "./o.gguf"], 2, "the output"),
        (["model.gguf", "-f", "text.txt", "-o", "o.gguf", "-c", "999"], 3, "made for 128"),
    ],
)
def test_bad_requests(
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(text.parent)
    text_model.write(Path("model.gguf"))
    Path("empty.txt").touch()
    assert main(["imatrix", *arguments]) == code
    said = capsys.readouterr()
    assert message in said.err and said.out == ""
    assert sorted(p.name for p in text.parent.iterdir()) == ["empty.txt", "model.gguf", "text.txt"]


def test_quantize_measures_first_and_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = text_model.write(tmp_path / "model.gguf")
    out, kept = tmp_path / "small.gguf", tmp_path / "small.imatrix.gguf"
    arguments = ["quantize", str(model), str(out), "--type", "Q4_K_M", "--calibration", str(text)]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not kept.exists()
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    done = json.loads(said.out)
    assert f"kept in {kept}" in said.err and done["importance_tensors"] == 14
    assert done["bytes"] == planned["bytes"] == out.stat().st_size
    with gguf.open(out) as file:
        assert file.metadata["quantize.imatrix.file"] == kept.name
        assert file.metadata["quantize.imatrix.dataset"] == str(text)[-127:]
    by_hand = trit.quantize(model, tmp_path / "hand.gguf", "Q4_K_M", imatrix=kept)
    assert by_hand.path is not None and by_hand.path.read_bytes() == out.read_bytes()
    before = kept.stat().st_mtime_ns
    assert main([*arguments, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == done["bytes"]
    api = trit.quantize(model, out, "Q3_K_M", calibration=text)
    assert api.weighted == 14 and kept.stat().st_mtime_ns == before
    text.write_text(text_model.TEXT[::-1] * 3)
    assert main(arguments) == 0
    assert kept.stat().st_mtime_ns > before


def test_quantize_keeps_its_inputs(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text_model.write(Path("model.gguf"))
    trit.imatrix(Path("model.gguf"), Path("i.gguf"), text, ctx=64, chunks=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments in (
        ["text.txt", "Q4_0", "--calibration", "text.txt"],
        ["text.txt", "Q4_0", "--calibration", "text.txt", "--effort", "balanced"],
        ["text.txt", "--bpw", "8", "--calibration", "text.txt"],
        ["i.gguf", "Q4_0", "--imatrix", "i.gguf"],
        ["i.gguf", "--bpw", "8", "--imatrix", "i.gguf"],
    ):
        assert main(["quantize", "model.gguf", *arguments]) == 2, arguments
        assert f"{arguments[0]} is an input" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_quantize_refuses_before_it_measures(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kept = tmp_path / "out.gguf", tmp_path / "out.imatrix.gguf"
    base = ["quantize", str(model), str(out), "--calibration", str(text)]
    for more, message in (
        (["--type", "Q4_0", "--imatrix", "x.gguf"], "--imatrix and --calibration"),
        (["--type", "Q4_0", "--tensor-type", "ffn=nvfp4"], "does not write"),
        (["--type", "TQ2_0"], "not ternary"),
    ):
        assert main([*base, *more]) in (1, 2)
        assert message in capsys.readouterr().err and not kept.exists()
    entry = {"a": (np.ones((1, 4)), np.ones(1, np.int64))}
    with imatrix.begin(kept, {"a": (1, 4)}, ["t"], 1, 4) as writer:
        imatrix.put(writer, "a", *entry["a"])
        writer.finish()
    assert main([*base, "--type", "Q4_0"]) == 2
    assert f"{kept} is in the way" in capsys.readouterr().err
