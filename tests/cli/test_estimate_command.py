"""`trit estimate`: the printed answer, JSON, exit codes."""

import json

import pytest

from trit.cli import main


def test_printed_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-c", "8192", "--bpw", "3.5", "--ram", "32GiB", "--no-measure"]
    assert main(["estimate", "70B", *arguments]) == 0  # some mix fits
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for part in ("weights", "cache", "scratch", "program", "DOES NOT FIT", "What would fit:"):
        assert part in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    # 70,553,706,496 weights of 4 bits, GiB; the four smallest machines cannot, 64 GiB can.
    assert rows["4"][1:3] == ["32.9", "GiB"] and rows["4"][5:] == ["-"] * 5 + ["yes"]
    assert rows["1.58"][5:] == ["-", "-", "2,944", "yes", "yes", "yes"]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "1B", "--device", "raspberry-pi-5-8gb", "--json", "-np", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    chosen = answer["chosen"]
    parts = ("weights", "cache", "scratch", "program")
    assert sum(chosen[f"{part}_bytes"] for part in parts) == chosen["total_bytes"]
    assert answer["sequences"] == 2 and chosen["fits"] and chosen["tokens_per_second"] > 1
    assert len(answer["canyon"]) == 9 and len(answer["mixes"]) > 25


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "400B", "--ram", "32GiB", "--no-measure"]) == 3
    assert "No mix fits" in capsys.readouterr().out
    assert main(["estimate", "nothing-such", "--no-measure"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["estimate", "8B", "-c", "9999999", "--no-measure"]) == 3


@pytest.mark.parametrize("words", [["estimate"], ["estimate", "any"], ["recommend"]])
def test_devices_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--device", "list"]) == 0
    out = capsys.readouterr().out
    assert "steam-deck" in out and max(map(len, out.splitlines())) <= 80
