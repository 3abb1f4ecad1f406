"""`trit compare`: answers through pipes, votes on a terminal, results, wrong input."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import talking_model
import trit
from compare import studies
from server import live
from trit import cli
from trit.cli.study import voting as on_terminal
from trit.compare import Asking, Settings, Store, Voting
from trit.compare.study import Answer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    whole = talking_model.write(folder / "f16.gguf")
    trit.quantize(whole, folder / "q4.gguf", "Q4_0", threads=1)
    return [str(folder / "q4.gguf"), str(whole)]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`run("A", "B", …)`: exit code, stdout, stderr, without a terminal, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("One?\nTwo?\nThree?\n")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        code = cli.main(["compare", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_from_answers_to_results(run: Callable[..., Any], models: list[str]) -> None:
    making = ("-n", "4", "-c", "100", "-t", "1", "--prompts", "prompts.txt", "-s", "3")
    code, out, err = run(*models, *making, "--temp", "1.5", "--system", "Be brief.")
    assert (code, out) == (0, "")
    assert "6 answers to make, at most 24 tokens" in err
    assert "sampling: temp 1.5, top-k 40" in err and "seed 3" in err
    assert "in a browser:       trit compare --page" in err
    with Store.open(Path("study.sqlite")) as store:
        settings = store.settings
        assert (settings.system, settings.max_tokens, settings.seed) == ("Be brief.", 4, 3)
        assert [model.name for model in store.models] == ["f16", "q4"]
        shown = Voting(store).next("ann")
        assert shown is not None
        Voting(store).vote(shown.token, "1")
    code, out, err = run("--judge", models[1], "-t", "1")
    assert code == 0 and "answers to make" not in err
    assert re.search(r"^A  f16 +f16 .*\nB  q4 +q4_0", out, re.MULTILINE)
    assert "3 prompts, 1 vote of 1 voter; one pass is 3" in out
    assert "A–B: not settled (p = 1)." in out and "Judge f16, a machine" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    found = json.loads(run("--json")[1])
    assert found["votes"] == 1 and found["judgements"][0]["pairs"][0]["votes"] == 3
    assert found["looks"] == [1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "there is no such study"),
        (["a.gguf", "--prompts", "prompts.txt"], 2, "trit compare A B --prompts FILE"),
        (["a.gguf", "b.gguf", "--prompts", "missing.txt"], 1, "missing.txt"),
        (["a.gguf", "b.gguf", "--prompts", "prompts.txt"], 1, "a.gguf"),
        (["-o", "prompts.txt"], 1, "expected a study"),
        (["--results", "--page"], 2, "--results"),
        (["--epsilon", "-1"], 2, "--epsilon"),
        (["--with-own"], 2, "--with-own is about results"),
        (["--with-own", "--page"], 2, "--with-own"),
        (["--own", "3", "--results"], 2, "--own is about blind votes"),
        (["--own", "3", "--named"], 2, "--own"),
        (["--own", "-1"], 2, "own"),
        (["--temp", "-1"], 2, "temperature"),
        (["--catch-every", "x"], 2, "catch-every"),
    ],
)
def test_wrong_input(
    run: Callable[..., Any], arguments: list[str], code: int, message: str
) -> None:
    got, out, err = run(*arguments)
    assert (got, out) == (code, "") and message in err and "bug" not in err
    assert not Path("study.sqlite").exists()


def test_other_settings_are_refused(run: Callable[..., Any]) -> None:
    studies.written(Path("study.sqlite")).close()
    for flags, message in (
        (("-n", "7"), "max_tokens 200, now it is 7"),
        (("--temp", "0"), "sampling"),
        (("--no-belief",), "ask_belief True, now it is False"),
    ):
        code, _, err = run(*flags)
        assert code == 2 and message in err
    assert run("-n", "200", "--results")[0] == 0, "the same are none"


def test_a_page_needs_its_packages(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trit.server.run", None)
    code, _, err = run("--page")
    assert code == 1 and "pip install 'trit[serve]'" in err


class Terminal:
    """`trit compare` on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import trit.cli.study.voting as v; v.PACE = 1e6\n"
             f"from trit import cli; raise SystemExit(cli.main({['compare', *arguments]!r}))"],
            stdin=slave, stdout=slave, stderr=slave, close_fds=True,
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def until(self, wanted: str) -> str:
        """What is written up to `wanted`, which is then taken."""
        deadline = time.monotonic() + 120
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.master], [], [], 0.2)[0]:
                self.text += os.read(self.master, 4096).decode().replace("\r\n", "\n")
        before, _, self.text = self.text.partition(wanted)
        return before

    def type(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def end(self) -> int:
        return self.process.wait(60)


def test_votes_on_a_terminal(tmp_path: Path) -> None:
    """Keys, an undo, a belief, and leaving; no name is shown."""
    path = tmp_path / "study.sqlite"
    studies.written(path, prompts=4).close()
    terminal = Terminal("-o", str(path))
    seen = terminal.until("q leave: ")
    assert "1 of 4" in seen and "── 1 ──" in seen and "── 2 ──" in seen and "answer to" in seen
    terminal.type("x")
    seen += terminal.until("q leave: ")
    terminal.type("u")
    assert "no vote to take back" in terminal.until("q leave: ")
    terminal.type("A")
    terminal.until("no idea: ")
    terminal.type("2")
    seen += terminal.until("q leave: ")
    assert "2 of 4" in seen
    terminal.type("u")
    assert "1 of 4" in terminal.until("q leave: ")
    terminal.type("t")
    terminal.until("no idea: ")
    terminal.type("")
    seen += terminal.until("q leave: ")
    terminal.type("q")
    seen += terminal.until("1 of 4 comparisons voted on, all kept")
    assert terminal.end() == 0
    assert not re.search("heavy|middle|gguf", seen)
    with Store.open(path) as store:
        (ballot,) = store.ballots("blind")
        assert (ballot.choice, ballot.believed, ballot.voter) == ("tie", "unsure", "terminal")
        assert len(store.undone()) == 1


def test_a_prompt_of_ones_own_on_a_terminal(tmp_path: Path, models: list[str]) -> None:
    """Refused, answered, voted on."""
    path, settings = tmp_path / "study.sqlite", Settings(max_tokens=9, ctx=200, ask_belief=False)
    trit.compare(models, ["One?"], path, settings, threads=1)
    terminal = Terminal("-o", str(path), "--own", "2", "-t", "1")
    assert "p a prompt of yours" in terminal.until("q leave: ")
    for line, reply in (("One?", "the study has this prompt already"), ("Two?", "── 1 of 2")):
        terminal.type("p")
        terminal.until("left): ")
        terminal.type(line)
        terminal.until(reply)
    assert "Two?" in terminal.until("q leave: ")
    terminal.type("2")
    terminal.until("2 of 2")
    terminal.type("q")
    terminal.until("1 of 2 comparisons voted on")
    assert terminal.end() == 0
    with Store.open(path) as store:
        assert list(store.prompts().values()) == ["One?", "Two?"]
        (ballot,) = store.ballots("blind")
        assert store.own_prompts() == {ballot.prompt: {"terminal"}}


def test_ctrl_c_cancels_a_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """While the models answer; nothing of it is kept, and the voting goes on."""

    class Stopped(Asking):
        def _answers(self, *_: object) -> list[Answer]:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", lambda words: "Why?")
    with studies.written(tmp_path / "study.sqlite", prompts=2) as store:
        assert on_terminal._asked(Stopped(store), "ann") is False
        assert len(store.prompts()) == 2
    assert "cancelled; nothing of it is kept" in capsys.readouterr().err


def test_results_say_what_is_among_them(run: Callable[..., Any]) -> None:
    with studies.written(Path("study.sqlite"), prompts=2) as store:
        assert store.add_own_prompt("ann", 3, "mine", 1e9, studies.answers(store, 3))
        shown = Voting(store).next("ann")
        assert shown is not None and shown.prompt == "mine"
        Voting(store).vote(shown.token, "1")
    code, out, _ = run("--results")
    told = " ".join(out.split())
    assert code == 0 and "2 prompts, 0 votes of 0 voters" in told
    assert "1 prompt of their own" in told and "not among these figures (--with-own)" in told
    told = " ".join(run("--results", "--with-own")[1].split())
    assert "3 prompts, 1 vote of 1 voter" in told and "they are among these figures" in told
    found = json.loads(run("--json", "--with-own")[1])
    assert found["own"] == {"prompts": 1, "voters": 1, "votes": 1, "included": True}
    assert all(len(line) <= 80 for line in out.splitlines())


def test_named_votes_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    with studies.written(path, prompts=2) as store:
        shown = Voting(store).next("terminal")
        assert shown is not None
        Voting(store).vote(shown.token, "1")
    terminal = Terminal("-o", str(path), "--named")
    seen = terminal.until("q leave: ")
    assert "heavy-f16" in seen and "middle-q4" in seen
    terminal.type("2")
    terminal.until("1 of 1 comparisons voted on")
    assert terminal.end() == 0


def test_a_text_cannot_steer_the_terminal_or_its_pace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both answers take their letters' time, whoever wrote them."""
    slept: list[float] = []
    monkeypatch.setattr(on_terminal.time, "sleep", slept.append)
    screen = on_terminal.Screen(color=False, terminal=True)
    written: list[str] = []
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with studies.written(tmp_path / "study.sqlite", prompts=2) as store:
        voting = Voting(store)
        shown = voting.next("ann")
        assert shown is not None
        on_terminal._show(voting, "ann", shown, screen)
        letters = sum(map(len, shown.texts))
        assert sum(slept) == pytest.approx(letters / on_terminal.PACE)
        written.append(sys.stdout.getvalue())  # type: ignore[attr-defined]
    assert shown.texts[0] in written[0] and shown.texts[1] in written[0]


def test_the_page_is_served(tmp_path: Path) -> None:
    """At the address that is said, until Ctrl-C; a vote is kept."""
    path = tmp_path / "study.sqlite"
    studies.written(path, prompts=2).close()
    process = subprocess.Popen(
        [sys.executable, "-m", "trit", "compare", "-o", str(path), "--page", "--port", "0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    found = re.search(r"vote at http://(\S+)/#blind", process.stderr.readline())
    assert found is not None
    turn = live.ask(found[1], "/compare/next", {"voter": "somebody"}).json
    vote = {"token": turn["presentation"]["token"], "choice": "bad"}
    assert live.ask(found[1], "/compare/votes", vote).status == 200
    assert "<title>trit</title>" in live.ask(found[1], "/").body
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    with Store.open(path) as store:
        assert [ballot.choice for ballot in store.ballots("blind")] == ["bad"]
