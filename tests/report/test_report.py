"""`trit report`: figures are those of the commands, and a report that was stopped goes on."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import text_model
import trit
from trit.cli import main
from trit.errors import InvalidFileError, TritError, UsageError
from trit.evaluate import evaluate
from trit.report import Report, _measure, report, write

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'trit[plot]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Floats, two quants of them, another model, a text and a task."""
    made = tmp_path_factory.mktemp("report")
    text_model.write(made / "m-F16.gguf")
    for name in ("Q8_0", "Q4_K_M"):
        trit.quantize(made / "m-F16.gguf", made / f"m-{name}.gguf", name, threads=1)
    text_model.write(made / "other.gguf", seed=1)
    (made / "text.txt").write_text(text_model.TEXT, encoding="utf-8")
    rows = [{"goal": f"do {n}", "sol1": "so", "sol2": "no", "label": n % 2} for n in range(3)]
    (made / "piqa.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return made


def measured(folder: Path, notes: Path | None, **others: object) -> Report:
    quants = [folder / "m-Q8_0.gguf", folder / "m-Q4_K_M.gguf"]
    return report(
        quants, folder / "m-F16.gguf", folder / "text.txt", ctx=64, chunks=2, prompt=8, generate=4,
        rounds=2, tasks=["piqa"], task_data=folder, threads=1, notes=notes, **others,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture(scope="module")
def found(folder: Path) -> Report:
    return measured(folder, folder / "kept.json", command="trit report <x>")


def test_figures_are_those_of_the_commands(folder: Path, found: Report) -> None:
    assert [model.label for model in found.models] == ["m-Q4_K_M", "m-Q8_0", "m-F16"]
    assert [model.is_reference for model in found.models] == [False, False, True]
    q4 = found.models[0]
    expected = evaluate(folder / "m-Q4_K_M.gguf", folder / "text.txt", folder / "m-F16.gguf",
                        64, 2, 1)  # fmt: skip
    assert q4.quality is not None and expected.divergence is not None
    assert q4.quality.ppl == expected.ppl and q4.quality.kld is not None
    assert q4.quality.kld.mean == expected.divergence.kld.mean
    assert q4.quality.ln_ratio == expected.divergence.ln_ratio
    assert [(rate.test, len(rate.samples)) for rate in q4.rates] == [("pp8", 2), ("tg4", 2)]
    assert all(rate.spread[0] <= rate.median <= rate.spread[1] for rate in q4.rates)
    assert q4.memory is not None and q4.memory > q4.bytes
    metric = q4.tasks[0].metrics[0]
    assert metric.change is not None and found.models[2].tasks[0].metrics[0].change is None
    assert metric.reference == found.models[2].tasks[0].metrics[0].value
    assert found.chosen in ("m-Q4_K_M", "m-Q8_0")
    assert found.words[0] == f"Take {found.chosen}: trit run {found.chosen}."
    assert found.title == "m" or "m-F16" in found.title


def test_a_report_goes_on(
    folder: Path, found: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "kept.json"
    notes.write_bytes((folder / "kept.json").read_bytes())
    costs: list[str] = []

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("measured twice")

    with monkeypatch.context() as patch:
        for name in ("evaluate", "bench", "ask"):
            patch.setattr(_measure, name, fail)
        again = measured(folder, notes, on_cost=costs.append)
    assert again.models == found.models and "0 readings" in costs[0] and "0 runs" in costs[0]
    kept = json.loads(notes.read_text())
    lost = [key for key, each in kept["measured"].items() if each["about"]["what"] == "task"][:1]
    del kept["measured"][lost[0]]
    notes.write_text(json.dumps(kept))
    with monkeypatch.context() as patch:
        for name in ("evaluate", "bench"):
            patch.setattr(_measure, name, fail)
        assert measured(folder, notes).models[0].tasks == found.models[0].tasks
    notes.write_text("[1]")
    with pytest.raises(InvalidFileError, match=r"kept.json: expected measurements of trit report"):
        measured(folder, notes)


def test_a_stopped_report_has_kept_what_was_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "kept.json"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_measure, "bench", stop)
    with pytest.raises(KeyboardInterrupt):
        measured(folder, notes)
    kinds = [each["about"]["what"] for each in json.loads(notes.read_text())["measured"].values()]
    assert sorted(kinds) == ["quality"] * 3 + ["task"] * 3


def test_html(found: Report, tmp_path: Path) -> None:
    assert write(found, tmp_path / "r.html") == [tmp_path / "r.html"]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = ElementTree.fromstring(
        re.sub(r"<(meta [^>]*)>", r"<\1/>", text.removeprefix("<!doctype html>\n"))
    )
    assert len(page.findall(".//{http://www.w3.org/2000/svg}svg")) == 5  # kld, speed, three of bits
    assert len(page.findall(".//tr[@class='marked']")) == 1
    for word in ("src=", 'href="http', "<script", "url(http", "@import"):
        assert word not in text, word
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    words = " ".join(page.itertext())
    for part in ("Which to take", "m-Q4_K_M", "piqa acc", "sha256", "trit report <x>", "pp8, t/s"):
        assert part in words, part
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_markdown(found: Report, tmp_path: Path) -> None:
    paths = write(found, tmp_path / "r.md")
    text = paths[0].read_text(encoding="utf-8")
    named = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert [path.name for path in paths[1:]] == named and len(named) == 5
    assert all(path.exists() for path in paths) and "\\<x>" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_json(found: Report, tmp_path: Path) -> None:
    write(found, tmp_path / "r.json")
    answer = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert answer["chosen"] == found.chosen and len(answer["models"]) == 3
    assert answer["models"][0]["bits"]["attn_q"]["0"]["format"] == "q4_k"
    assert answer["threads"] == 1 and answer["machine"]["isa"] and answer["text"]["ctx"] == 64


def test_without_a_reference_no_choice_is_made(folder: Path) -> None:
    quants = [folder / "m-Q8_0.gguf", folder / "m-Q4_K_M.gguf"]
    text = text_model.TEXT
    alone = report(quants, text=text, ctx=64, chunks=1, prompt=0, generate=0, threads=1)
    assert alone.chosen is None and "Give --reference" in alone.words[0]
    assert alone.models[0].rates == () and alone.reference is None
    other = report(
        folder / "m-Q8_0.gguf", folder / "other.gguf", text, ctx=64, chunks=1, prompt=0, generate=0
    )
    assert len(other.models) == 2 and other.text.name == "a text"


def test_wrong_requests(folder: Path, tmp_path: Path, found: Report) -> None:
    with pytest.raises(UsageError, match="no model"):
        report([])
    with pytest.raises(UsageError, match="at least one round"):
        report([folder / "other.gguf"], rounds=0)
    with pytest.raises(UsageError, match="go together"):
        report([folder / "other.gguf"], tasks=["piqa"])
    with pytest.raises(UsageError, match=r"ends in \.html, \.md, \.json"):
        write(found, tmp_path / "r.pdf")
    with pytest.raises(TritError):
        report([folder / "absent.gguf"])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--text", "r.json", "-o", "r.json"], "r.json"),
        (["--text", "r.md", "-o", "r.html", "--md"], "r.md"),
        (["--task", "piqa", "--task-data", "piqa.json", "-o", "piqa.json"], "piqa.json"),
        (["--reference", "model.json", "-o", "model.json"], "model.json"),
    ],
)
def test_inputs_stay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], words: list[str], name: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = {"piqa.json": "piqa.jsonl", "model.json": "m-F16.gguf"}.get(name, "text.txt")
    Path(name).write_bytes((folder / source).read_bytes())
    assert main(["report", str(folder / "m-Q8_0.gguf"), *words]) == 2
    assert f"{name} is an input" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert Path(name).read_bytes() == (folder / source).read_bytes()


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [str(folder / "m-Q8_0.gguf"), "--text", str(folder / "text.txt"), "-c", "64"]
    words += ["--chunks", "1", "-p", "0", "-n", "4", "-r", "1", "-t", "1", "-o", "out.html"]
    assert main(["report", *words, "--md"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("There is one file") and "m-Q8_0" in captured.out
    said = captured.err.splitlines()
    assert (
        said[0].startswith("models: 1, ") and "1 readings of the text in windows of 64" in said[0]
    )
    assert "written: out.html" in said and "written: out.md" in said
    assert Path("out.measured.json").exists()
    assert main(["report", *words, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["models"][0]["label"] == "m-Q8_0"
    assert "0 readings" in captured.err and "0 runs" in captured.err
    assert main(["report", words[0], "-o", "x.pdf"]) == 2
    assert main(["report", words[0], "--task", "piqa"]) == 2
    assert main(["report"]) == 2
