"""`trit recommend`: three lines, a table in 80 columns, JSON, exit codes."""

import json

import pytest

from trit.cli import main
from trit.estimate import devices


@pytest.mark.parametrize("device", devices())
def test_three_lines_and_a_table(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "3B", "-c", "8192", "--device", device]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and lines[3] == ""
    assert lines[0].startswith("Take ") and lines[1].startswith("It takes ")
    assert lines[2].startswith("It loses ")
    marked = [line for line in lines if line.startswith("->")]
    assert len(marked) == 1 and marked[0].split()[1] == lines[0].split()[-1]
    assert "not measured on this model" in "\n".join(lines)


@pytest.mark.parametrize("command", ["recommend", "estimate"])
def test_high_speeds_are_written_out(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A small model on a quick machine writes hundreds of tokens a second, no 1e+02."""
    assert main([command, "60M", "--device", "steam-deck"]) == 0
    out = capsys.readouterr().out
    assert "e+" not in out and any(word.isdigit() and int(word) > 99 for word in out.split())


def test_json_and_nothing_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "70B", "--ram", "16GiB", "--no-measure", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["chosen"] is None and answer["words"][0].startswith("Nothing of 70B fits")
    assert {each["basis"] for each in answer["candidates"]} <= {
        "curve", "curve, prolonged", "floats",
    }  # fmt: skip
    assert main(["recommend", "no-such-model", "--no-measure"]) == 2
