"""`trit eval`: the answer on stdout, the cost and the figures so far on stderr."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import text_model
from trit.cli import main
from trit.evaluate import _fact_items, evaluate, recall
from trit.evaluate._opened import Opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text_model.TEXT, encoding="utf-8")
    return path


def test_json(model: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(model), "--text", str(text), "--ctx", "64", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = evaluate(model, text, ctx=64)
    assert answer["ppl"] == expected.ppl.mean and answer["ppl_stderr"] == expected.ppl.stderr
    assert answer["tokens"] == expected.tokens and "kld_mean" not in answer


def test_json_with_a_reference(model: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-m", str(model), "-f", str(text), "--reference", str(model), "-c", "64"]
    assert main(["eval", *arguments, "--chunks", "2", "--threads", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"ppl", "ppl_stderr", "kld_mean", "kld_p99", "same_top", "tokens"} <= set(answer)
    assert (answer["chunks"], answer["threads"], answer["kld_p99"]) == (2, 1, 0)
    places = ["p999", "p99", "p95", "p90", "median", "p10", "p05", "p01", "p001", "max", "min"]
    assert {f"kld_{place}" for place in places} <= set(answer)


def test_text_for_people(model: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--text", str(text), "--reference", str(model), "--ctx", "64", "--chunks", "2"]
    assert main(["eval", str(model), *arguments]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == f"{model} against {model}"
    assert "2 windows of 64, 62 tokens scored" in lines[1]
    for row in ("PPL  ", "KLD mean", "KLD 99.9%", "KLD median", "Δp RMS", "same top token"):
        assert any(line.startswith(row) for line in lines), row
    assert "same top token         100.000 ± 0.000%" in lines
    said = captured.err.splitlines()
    assert said[0].startswith("2 windows of 64 tokens; ")
    assert said[-1].startswith("[2/2] PPL ") and "KLD 0.00000" in said[-1]


def test_progress_as_json_lines(
    model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--text", str(text), "--ctx", "64", "--chunks", "2", "--jsonl"]
    assert main(["eval", str(model), *arguments]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["done"] for event in events] == [0, 1, 2]
    assert events[0]["ppl"] is None and events[2]["ppl"] > 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "no model"),
        (["MODEL"], 2, "no text"),
        (["MODEL", "-m", "other", "--text", "TEXT"], 2, "two models"),
        (["MODEL", "--text", "absent.txt"], 1, "absent.txt: expected a file of UTF-8 text, got"),
        (["MODEL", "--text", "TEXT", "--ctx", "2"], 2, "--ctx 2"),
        (["MODEL", "--text", "TEXT", "--ctx", "64", "--chunks", "0"], 2, "--chunks 0"),
        (["MODEL", "--text", "TEXT", "--ctx", "4096"], 3, "made for 128"),
        (["absent.gguf", "--text", "TEXT"], 1, "absent.gguf"),
    ],
)
def test_bad_requests_are_one_line(
    arguments: list[str],
    code: int,
    says: str,
    model: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {"MODEL": str(model), "TEXT": str(text)}
    assert main(["eval", *(paths.get(word, word) for word in arguments)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and says in captured.err


def test_an_argument_wins_over_a_variable(
    model: Path, text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--text", str(text), "--ctx", "64", "--chunks", "1"]
    monkeypatch.setenv("TRIT_MODEL", str(model))
    assert main(["eval", *arguments]) == 0
    monkeypatch.setenv("TRIT_MODEL", "absent.gguf")
    assert main(["eval", str(model), *arguments]) == 0
    assert main(["eval", "-m", str(model), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("1 window of 64 tokens;") == 3 and "1 windows" not in captured.out
    assert main(["eval", *arguments]) == 1
    assert "absent.gguf" in capsys.readouterr().err


def test_an_interruption_is_one_line(
    model: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(self: object, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Opened, "read", interrupt)
    assert main(["eval", str(model), "--text", str(text), "--ctx", "64"]) == 130
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines()[-1] == "trit: interrupted"


def test_on_a_terminal_one_line_is_rewritten(
    model: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["eval", str(model), "--text", str(text), "--ctx", "64", "--chunks", "3"]) == 0
    said = capsys.readouterr().err
    assert said.count("\r\x1b[K[") == 3 and said.count("\n") == 2 and said.endswith("0 s left\n")


@pytest.fixture
def fewer_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _fact_items.load()
    some = replace(facts, items=facts.items[::4])
    monkeypatch.setattr(recall, "load", lambda: some)


@pytest.mark.usefixtures("fewer_facts")
def test_facts_as_json(model: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--facts", "--reference", str(model), "--threads", "1", "--json"]
    assert main(["eval", str(model), *arguments]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"facts"} and answer["facts"]["forgotten"] == []
    group = answer["facts"]["groups"][0]
    assert (group["name"], group["lost"], group["won"]) == ("all", 0, 0)
    low, high = group["right_interval"]
    assert low < group["right"] == group["reference_right"] < high
    arguments = ["--facts", "--text", str(text), "--ctx", "64", "--chunks", "1", "--json"]
    assert main(["eval", str(model), *arguments]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["facts"]["groups"][0]["right"] == group["right"] and both["chunks"] == 1
    assert "change" not in both["facts"]["groups"][0]


@pytest.mark.usefixtures("fewer_facts")
def test_facts_for_people(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text_model.write(tmp_path / "other.gguf", seed=1)
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "other.gguf", "--facts", "--reference", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines[1:]) <= 80
    assert lines[0] == f"other.gguf against {model}"
    for start in ("RIGHT, %", "arithmetic ", "rare ", "frequent ", "MARGIN, nats", "forgotten: "):
        assert any(line.startswith(start) for line in lines), start
    assert sum("shown" in line for line in lines) == 2
    shown = next(i for i, line in enumerate(lines) if line.startswith("forgotten: "))
    assert "the 8 rarest" in lines[shown] and len(lines) == shown + 9
    assert main(["eval", "other.gguf", "--facts"]) == 0
    alone = capsys.readouterr().out
    assert "REF." not in alone and "forgotten" not in alone


def test_facts_know_no_windows(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(model), "--facts", "--ctx", "64"]) == 2
    assert "add --text FILE" in capsys.readouterr().err


@pytest.fixture
def piqa(tmp_path: Path) -> Path:
    rows = [{"goal": f"do {n}", "sol1": "so", "sol2": "no", "label": n % 2} for n in range(5)]
    (tmp_path / "piqa.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def test_tasks(model: Path, piqa: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task", "piqa", "--task-data", str(piqa), "--limit", "4"]
    assert main(["eval", str(model), *arguments, "--reference", str(model), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["tasks"]["tasks"]
    assert (answer["task"], answer["questions"], answer["total"]) == ("piqa", 4, 5)
    assert set(answer["metrics"]) == {"acc", "acc_norm", "acc_bytes"}
    assert answer["metrics"]["acc"]["change"] == 0
    assert main(["eval", str(model), *arguments, "--reference", str(model)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert "|Tasks|Version|Filter|n-shot|Metric  | | Value| |Stderr|" in lines
    assert any(line.startswith("|piqa |      1|none  |     0|acc     |↑|0.") for line in lines)
    assert any(line.startswith("piqa    acc_norm") and "+0.00 (" in line for line in lines)
    assert max(len(line) for line in lines[1:]) <= 80
    assert captured.err.startswith("4 questions of two models; the time is known")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--task", "piqa"], 2, "--task NAME, --task-data DIR and --limit go together"),
        (["--facts", "--limit", "3"], 2, "go together"),
        (["--task", "boolq", "--task-data", "DATA"], 2, "'boolq' is none of the tasks"),
        (["--task", "lambada", "--task-data", "DATA"], 2, "trit downloads no task data"),
        (["--task", "piqa", "--task-data", "DATA", "--limit", "0"], 2, "1 question or more"),
        (["--task", "piqa", "--task-data", "absent.jsonl"], 1, "absent.jsonl: expected a file"),
        (["--task", "piqa,lambada", "--task-data", "DATA/piqa.jsonl"], 2, "a file has one task"),
    ],
)
def test_bad_requests_of_tasks(
    arguments: list[str],
    code: int,
    says: str,
    model: Path,
    piqa: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.replace("DATA", str(piqa)) for word in arguments]
    assert main(["eval", str(model), *words]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and says in captured.err and captured.err.count("\n") == 1
