"""`trit neurons`: the table, JSON, a line per neuron and a picture."""

import json
from pathlib import Path

import pytest

import small_model
import text_model
import trit
from trit.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text_model.TEXT * 3, encoding="utf-8")
    return path


def test_json(model: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--ctx", "64", "--chunks", "2", "-t", "2", "--exact", "--json"]
    assert main(["neurons", str(model), "--text", str(text), *flags]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = trit.neurons(model, text, ctx=64, chunks=2, exact=True, threads=2).to_dict()
    assert answer | {"seconds": 0} == json.loads(json.dumps(expected)) | {"seconds": 0}
    assert (answer["tokens"], answer["neurons"]) == (128, 2 * small_model.FEED_FORWARD)
    assert [layer["layer"] for layer in answer["layers"]] == [0, 1]


def test_text_for_people(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each = tmp_path / "each.tsv"
    arguments = ["-m", str(model), "-f", str(text), "-c", "64", "--chunks", "1"]
    assert main(["neurons", *arguments, "--each", str(each)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"{model}: 1,024 neurons in 2 layers"
    assert max(map(len, lines[4:])) <= 80
    assert '"80% rarely activate" is ' in said.out
    assert f"written: {each}" in said.err
    head, *rows = (line.split("\t") for line in each.read_text().splitlines())
    assert len(rows) == 2 * small_model.FEED_FORWARD and rows[-1][:2] == ["1", "511"]
    energy = [float(row[head.index("energy")]) for row in rows if row[0] == "0"]
    assert sum(energy) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_plot(model: Path, text: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    plot = tmp_path / f"plot.{kind}"
    arguments = ["neurons", str(model), "-f", str(text), "-c", "64", "--chunks", "1"]
    assert main([*arguments, "--plot", str(plot)]) == 0
    first = plot.read_bytes()
    assert (b"80%, rarely" in first) if kind == "svg" else first.startswith(b"\x89PNG")
    assert main([*arguments, "--plot", str(plot)]) == 0
    assert plot.read_bytes() == first and not list(tmp_path.glob("*.partial"))


def test_prune(model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    arguments = ["neurons", str(model), "-f", str(text), "-c", "64", "--chunks", "1", "-t", "1"]
    arguments += ["--eval-text", str(text), "--prune", "0.25", "-o", str(out), "--multiple", "64"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    pruned = answer.pop("pruned")
    assert answer["claim"] and (pruned["neurons_before"], pruned["neurons"]) == (512, 384)
    assert pruned["evaluation"]["kld_mean"] > 0 and pruned["multiple"] == 64
    assert pruned["evaluation"]["text"]["name"] == str(text)
    first = out.read_bytes()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"{out}: 384 of 512 neurons in each layer" in said
    assert f"{pruned['evaluation']['kld_mean']:.5f} ± " in said
    assert out.read_bytes() == first
    assert main(["show", str(out)]) == 0
    with trit.load(out, threads=1) as narrow:
        assert narrow.generate("The", max_tokens=2, temperature=0).text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--each", "m.gguf"],
        ["--each", "text.svg"],
        ["--plot", "text.svg"],
        ["--prune", "0.2", "-o", "text.svg"],
        ["--prune", "0.2", "--eval-text", "other.txt", "-o", "other.txt"],
    ],
)
def test_inputs_stay(
    arguments: list[str],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--plot" in arguments:
        pytest.importorskip("matplotlib", reason="the extra plot")
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").write_bytes(model.read_bytes())
    for name in ("text.svg", "other.txt"):
        Path(name).write_text(text_model.TEXT * 3, encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["neurons", "m.gguf", "-f", "text.svg", *arguments]) == 2
    said = capsys.readouterr()
    assert f"{arguments[-1]} is an input" in said.err and said.out == ""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no model"),
        (["MODEL", "--prune", "0.2", "-o", "o.gguf", "--each", "./o.gguf"], 2, "a file of its own"),
        (["MODEL", "--plot", "a.jpg"], 2, "expected a name that ends in .svg or .png"),
        (["MODEL", "--plot", "absent/a.svg"], 2, "there is no folder"),
        (["MODEL", "--each", "absent/a.tsv"], 2, "there is no folder"),
        (["MODEL", "-f", "absent.txt"], 1, "absent.txt"),
        (["MODEL", "--prune", "0.2"], 2, "no output: trit neurons"),
        (["MODEL", "-o", "o.gguf"], 2, "add --prune 0.2"),
        (["MODEL", "--multiple", "64"], 2, "add --prune 0.2"),
        (["MODEL", "--prune", "1.5", "-o", "o.gguf"], 2, "expected a share between 0 and 1"),
        (["MODEL", "-f", "TEXT", "-c", "999"], 3, "made for 128"),
    ],
)
def test_bad_requests(
    arguments: list[str],
    code: int,
    message: str,
    model: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {"MODEL": str(model), "TEXT": str(text)}
    assert main(["neurons", *(known.get(word, word) for word in arguments)]) == code
    said = capsys.readouterr()
    assert message in said.err and said.out == ""
