"""`trit recommend`: three lines, a table in 80 columns, JSON, exit codes."""

import json

import pytest

from trit.cli import _terminal, main
from trit.estimate import devices
from trit.recommend import _words


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


def test_high_speeds_are_written_out() -> None:
    """Hundreds of tokens a second are no 1e+02."""
    assert [_words._rate(speed) for speed in (0.123, 9.87, 99.6, 1234.5)] == [
        "0.12", "9.9", "100", "1234",
    ]  # fmt: skip
    assert [_terminal.rate(speed) for speed in (0.1234, 17.43, 99.94, 1234.5)] == [
        "0.123", "17.4", "99.9", "1234",
    ]  # fmt: skip


def test_json_and_nothing_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "70B", "--ram", "16GiB", "--no-measure", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["chosen"] is None and answer["words"][0].startswith("Nothing of 70B fits")
    assert {each["basis"] for each in answer["candidates"]} <= {
        "curve", "curve, prolonged", "floats",
    }  # fmt: skip
    assert main(["recommend", "no-such-model", "--no-measure"]) == 2
