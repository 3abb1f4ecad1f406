"""`trit run`: one answer through pipes, a chat on a terminal, wrong input, Ctrl-C."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import talking_model
from trit import cli
from trit.cli._chat_settings import Asked, biases, described
from trit.cli._chat_terminal import _CONTROL, Screen
from trit.errors import UsageError
from trit.runtime.model import load
from trit.runtime.sample import SamplerSettings

GREEDY = ("--temp", "0", "-n", "8")
NEVER = [f"{token}-inf" for token in (talking_model.EOS, talking_model.END)]
ENDLESS = ("--logit-bias", NEVER[0], "--logit-bias", NEVER[1])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does not end its answers within a test."""
    keys = {"llama.context_length": 1 << 20}
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf", keys)


@pytest.fixture
def run(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`run("-p", "x", stdin=b"")`: exit code, stdout, stderr of `trit run MODEL …`."""

    def call(*arguments: str, stdin: bytes = b"", model: object = path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        named = [] if model is None else [str(model)]
        code = cli.main(["run", *named, "-t", "1", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def expected(path: Path, text: str, *, chat: bool = True, system: str | None = None) -> str:
    """What the API answers, greedily, in 8 tokens."""
    with load(path, threads=1) as model:
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": text})
        prompt = model.prompt(messages) if chat else text
        return model.generate(prompt, max_tokens=8, temperature=0).text


def test_one_answer(run: Callable[..., Any], path: Path) -> None:
    code, out, err = run("-p", "the", *GREEDY)
    assert (code, out) == (0, expected(path, "the") + "\n")
    assert "temp 0, top-k 40, top-p 0.95, min-p 0.05, repeat-penalty 1, seed " in err
    assert re.search(r"prompt +\d+ tokens, [\d.]+ t/s", err)
    assert re.search(r"generation +8 tokens, [\d.]+ t/s", err)
    assert re.search(r"first token +[\d.]+ s after the process was started", err)
    assert re.search(r"memory +[\d.]+ MiB of weights mapped, .* of cache", err)
    assert re.search(r"predicted +[\d.]+ MiB in all", err)


def test_cache_type(run: Callable[..., Any]) -> None:
    """Half the memory with q8_0 (17 bytes for 32, from 64), and an answer."""
    sizes = {}
    for kind in ("f32", "f16", "q8_0"):
        code, out, _ = run("-p", "the", *GREEDY, "--cache-type", kind, "--json")
        assert code == 0
        sizes[kind] = json.loads(out)["cache_bytes"]
    assert sizes["f32"] == 2 * sizes["f16"] and sizes["q8_0"] == sizes["f16"] * 17 // 32
    assert run("-p", "the", "-ctk", "f16", "-ctv", "q8_0")[0] == 2


def test_prompts_from_everywhere(run: Callable[..., Any], path: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("the ñ\n".encode())
    assert run("-f", str(file), *GREEDY)[1] == expected(path, "the ñ") + "\n"
    assert run(*GREEDY, stdin=b"the\r\n")[1] == expected(path, "the") + "\n"
    both = run("-p", "the", *GREEDY, stdin=b"cat\n")[1]
    assert both == expected(path, "the\n\ncat") + "\n"
    assert run("-p", "the", "-no-cnv", *GREEDY)[1] == expected(path, "the", chat=False) + "\n"
    second = tmp_path / "second.txt"
    second.write_text("cat\n")
    about = run("-p", "the", "-f", str(second), *GREEDY)[1]
    assert about == both
    two = run("-p", "the", "-f", str(file), "-f", str(second), *GREEDY)[1]
    assert two == expected(path, "the\n\nprompt.txt:\n\nthe ñ\n\nsecond.txt:\n\ncat") + "\n"
    told = run("-p", "the", "-sys", "Be brief.", *GREEDY)[1]
    assert told == expected(path, "the", system="Be brief.") + "\n"


def test_old_habits(run: Callable[..., Any], path: Path) -> None:
    code, out, err = run("-m", str(path), "-n", "8", "--repeat_penalty", "1.1", "--color",
                         "--temp", "0", "-p", "the", model=None)  # fmt: skip
    assert code == 0
    assert "\x1b" not in out  # the answer is plain
    assert "repeat-penalty 1.1, repeat-last-n 64" in err and "\x1b[2m" in err
    assert "\x1b" not in run("-p", "the", *GREEDY)[2]  # no terminal: no colour


def test_guesses_change_no_answer(run: Callable[..., Any]) -> None:
    again = ("-p", "the", "--temp", "0", "-n", "60", "--logit-bias", "65+1000")
    plain, drafted, short = (
        json.loads(run(*again, "--draft-max", count, "--json")[1]) for count in ("0", "8", "1")
    )
    assert plain["text"] == drafted["text"] == short["text"]
    assert plain["drafted_tokens"] == plain["accepted_tokens"] == 0
    assert 0 < drafted["accepted_tokens"] <= drafted["drafted_tokens"]
    assert re.search(r"guessed ahead +\d+ tokens?, \d+ of them right", run(*again)[2])
    assert "guessed" not in run(*again, "--draft-max", "0")[2]
    assert run("-p", "the", "--draft-max", "-1")[0] == 2


def test_json(run: Callable[..., Any], path: Path) -> None:
    code, out, _ = run("-p", "the", *GREEDY, "--json", "-s", "5")
    answer = json.loads(out)
    assert code == 0
    assert answer["text"] == expected(path, "the")
    assert (answer["tokens"], answer["seed"], answer["finish_reason"]) == (8, 5, "length")
    with load(path) as model:
        assert answer["prompt_tokens"] == len(model.prompt([{"role": "user", "content": "the"}]))
    assert answer["prompt_tps"] > 0 and answer["generation_tps"] > 0
    assert answer["first_token_seconds"] > 0
    one = json.loads(run("-p", "the", "-n", "1", "--json")[1])
    assert one["generation_tps"] is None


def test_the_first_token_counts_from_the_start_of_the_process(path: Path) -> None:
    begun = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-m", "trit", "run", str(path), "-p", "the", "-n", "2", "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    ).stdout  # fmt: skip
    seconds = json.loads(out)["first_token_seconds"]
    assert 0.05 < seconds < time.monotonic() - begun + 0.02  # the system counts in 10 ms


def test_sampling_flags_reach_the_sampler(run: Callable[..., Any]) -> None:
    flags = ["--top-k", "-1", "--top-p", "0.5", "--min-p", "0.1", "--repeat-penalty", "1.5",
             "--repeat-last-n", "8", "--presence-penalty", "0.25", "--frequency-penalty", "0.75",
             "--logit-bias", "65+1.5", "--logit-bias", "66-inf", "--temp", "2",
             "-s", "11"]  # fmt: skip
    err = run("-p", "the", "-n", "3", *flags)[2]
    assert (
        "temp 2, top-k 0, top-p 0.5, min-p 0.1, repeat-penalty 1.5, presence-penalty 0.25, "
        "frequency-penalty 0.75, repeat-last-n 8, logit-bias 65+1.5, logit-bias 66-inf, seed 11"
    ) in err
    forced = run("-p", "the", "-n", "3", "--logit-bias", "65+1000")[1]
    assert forced == "AAA\n"
    seeded = [run("-p", "the", "-n", "9", "-s", seed, "--temp", "3")[1] for seed in "112"]
    assert seeded[0] == seeded[1] != seeded[2]


def test_stop_and_context(run: Callable[..., Any], path: Path) -> None:
    whole = expected(path, "the")
    cut = run("-p", "the", *GREEDY, "--stop", whole[3:5])[1]
    assert cut == whole[: whole.find(whole[3:5])] + "\n"
    assert run("-p", "the", *GREEDY, "-r", whole[3:5])[1] == cut
    code, _, err = run("-p", "the " * 20, "-c", "100", "--temp", "0", "-b", "16")
    assert code == 0 and "the context of 100 tokens is full" in err


def test_base_models_go_on_from_the_text(run: Callable[..., Any], tmp_path: Path) -> None:
    base = talking_model.write(tmp_path / "base.gguf", {"tokenizer.chat_template": ""})
    code, out, err = run("-p", "the", *GREEDY, model=base)
    assert (code, out) == (0, expected(base, "the", chat=False) + "\n")
    assert "no chat template" in err
    code, _, err = run("-p", "the", "-sys", "x", model=base)
    assert code == 1 or code == 2
    assert "no chat template" in err
    assert run("-p", "the", "-cnv", model=base)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-p", "x", "-n", "0"], 2, "-n 0"),
        (["-p", "x", "-c", "300"], 3, "300"),
        (["-p", "x" * 400], 3, "418 tokens, the context has room for 256"),
        (["-p", "x", "--temp", "-1"], 2, "temperature is -1"),
        (["-p", "x", "--temp", "hot"], 2, "--temp"),
        (["-p", "x", "--logit-bias", "65"], 2, "--logit-bias 65"),
        (["-p", "x", "--logit-bias", "999+1"], 2, "999"),
        (["-p", "x", "--color=blue"], 2, "--color blue"),
        (["-f", "/nonexistent/prompt"], 1, "/nonexistent/prompt: expected a file with text"),
        (["-p", "x", "--format", "xml"], 2, "--format xml"),
        (["-p", "x", "--schema", '{"type"'], 2, "--schema: expected a JSON schema"),
        (["-p", "x", "--schema", "/nonexistent.json"], 1, "/nonexistent.json"),
        (["-p", "x", "--schema", '{"type": "nonsense"}'], 2, "cannot be used"),
        (["-p", "x", "--think", "loud"], 2, "--think loud"),
        (["-p", "x", "--session", "s"], 2, "--session"),
        (["-p", "x", "-sys", "y", "-no-cnv"], 2, "--system"),
        (["-p", "x", "--stop", ""], 2, "--stop"),
        (["-p", "", "-no-cnv"], 2, "empty"),
        (["-m", "other", "-p", "x"], 2, "two models"),
        (["--json"], 2, "no prompt"),
        ([], 2, "no prompt"),
    ],
)
def test_wrong_input_is_one_line(
    run: Callable[..., Any], arguments: list[str], code: int, message: str
) -> None:
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    lines = [line for line in err.splitlines() if not line.startswith("sampling: ")]
    assert len(lines) == 1 and message in lines[0]


def test_models_that_cannot_be_run(run: Callable[..., Any], tmp_path: Path) -> None:
    for model, word in ((tmp_path / "no.gguf", "no such file"), (tmp_path, "config.json")):
        code, out, err = run("-p", "x", model=model)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert word in err
    hostile = {"tokenizer.chat_template": "{{ ''.__class__.__mro__ }}"}
    code, out, err = run("-p", "x", model=talking_model.write(tmp_path / "m.gguf", hostile))
    assert (code, out) == (1, "")
    assert "chat template" in err.splitlines()[-1]
    code, _, err = run("-p", "x", stdin=b"\xff\xfe")
    assert code == 1 and "stdin: byte 0: expected UTF-8" in err


def test_the_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(color=False, terminal=True).write("a\x1b]0;title\x07\r\n\tb\x9b")
    assert capsys.readouterr().out == "a\ufffd]0;title\ufffd\n\tb\ufffd"
    Screen(color=False, terminal=False).write("a\x1b")
    assert capsys.readouterr().out == "a\x1b"


def test_colour_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Screen.of("auto").color and not Screen.of("off").color
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen.of("auto").color and Screen.of("on").color


def test_settings() -> None:
    assert biases(["1+2", "3-0.5", "4-inf"]) == {1: 2, 3: -0.5, 4: float("-inf")}
    for wrong in ("x+1", "5", "5+", "5+one", "+1"):
        with pytest.raises(UsageError):
            biases([wrong])
    base = SamplerSettings(temperature=0.3, top_p=0.7)
    asked = Asked(top_p=0.9, seed=-1)
    assert asked.sampling(base) == SamplerSettings(temperature=0.3, top_p=0.9)
    assert described(asked.sampling(base)).endswith("a new seed each time")


def test_ctrl_c_is_one_line_and_130(endless: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "trit", "run", str(endless), "-c", "0", "-p", "the", *ENDLESS],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdout and process.stdout.read(1)  # the answer has begun
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert rest.endswith(b"\n")
    assert [line for line in err.decode().splitlines() if "sampling" not in line] == [
        "trit: interrupted"
    ]


def shown(text: str) -> str:
    """A model's text as a terminal gets it."""
    return text.translate(_CONTROL)


class Terminal:
    """`trit run` on a pseudo-terminal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            defaults = {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
            os.environ.update({**defaults, **environment})
            os.execv(sys.executable, [sys.executable, "-m", "trit", "run", *arguments])

    def send(self, text: str) -> None:
        time.sleep(0.1)  # a Ctrl-C between readline's prompt and its waiting is heard a key later
        os.write(self.file, text.encode())

    def until(self, word: str, seconds: float = 30) -> str:
        """What it says up to and with `word`."""
        said = b""
        end = time.monotonic() + seconds
        while word.encode() not in said:
            left = end - time.monotonic()
            assert left > 0, f"waited for {word!r}, got {said!r}"
            if select.select([self.file], [], [], left)[0]:
                try:
                    said += os.read(self.file, 65536)
                except OSError:  # the other side is closed
                    raise AssertionError(f"ended before {word!r}: {said!r}") from None
        # Ctrl-C makes a terminal drop what waits to be shown, in the middle of a character too.
        text = said.decode(errors="replace")
        return re.sub(r"\x1b\[\?2004[hl]\r?", "", text)  # readline's bracketed paste

    def until_it_speaks(self) -> None:
        """Wait for the first of an answer."""
        said = ""
        while not re.sub(r"\x1b\[[?\d;]*[a-zA-Z]|\s", "", said):
            assert select.select([self.file], [], [], 60)[0]
            said += os.read(self.file, 65536).decode(errors="replace")

    def ask(self, text: str) -> str:
        """Type a line; what is said until the next prompt."""
        self.send(text + "\n")
        return self.until(">>> ").replace("\r\n", "\n")

    def leave(self) -> int:
        """The exit code, once everything was said."""
        try:
            while os.read(self.file, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self.file)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, **environment: str) -> Terminal:
        opened.append(Terminal(*arguments, XDG_STATE_HOME=str(tmp_path / "state"), **environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_chat(terminal: Callable[..., Terminal], path: Path, tmp_path: Path) -> None:
    chat = terminal(str(path), "-t", "1", *GREEDY)
    greeting = chat.until(">>> ")
    assert "Small Model" in greeting and "temp 0" in greeting
    first = chat.ask("the")
    assert shown(expected(path, "the")) in first
    assert re.search(r"\[8 tokens, [\d.]+ t/s, first after [\d.]+ s, context \d+ of 256\]", first)
    assert "still in the cache" not in chat.ask("/stats")
    chat.ask("again")
    assert re.search(r"\d+ of them still in the cache", chat.ask("/stats"))

    saved = tmp_path / "talk.json"
    assert "4 messages saved" in chat.ask(f"/save {saved}")
    messages = json.loads(saved.read_text())["messages"]
    assert [said["content"] for said in messages[::2]] == ["the", "again"]
    assert messages[1] == {"role": "assistant", "content": expected(path, "the")}

    chat.ask("/clear")
    assert shown(expected(path, "one\ntwo")) in chat.ask('"""one\ntwo"""')
    assert shown(expected(path, "one\ntwo")) in chat.ask("/regen")  # temp 0: the same again
    assert "user: one" in chat.ask("/show messages")
    assert "4 messages loaded" in chat.ask(f"/load {saved}")
    assert "assistant: " + shown(messages[1]["content"]) in chat.ask("/show messages")

    chat.ask("/clear")
    chat.ask("/set system Be brief.")
    assert shown(expected(path, "the", system="Be brief.")) in chat.ask("the")
    assert "temp 0.5" in chat.ask("/set temp 0.5") + chat.ask("/show")
    assert "such setting" in chat.ask("/set nothing 1")
    assert "temperature is -1" in chat.ask("/set temp -1")
    assert "Did you mean /stats?" in chat.ask("/stat")
    assert "/regen" in chat.ask("/help")
    assert "the prompt has" in chat.ask("long " * 80)  # does not fit; the chat goes on
    chat.ask("/set temp 0")  # above it, the answer may end at once
    chat.ask("/set n 2")
    assert "[2 tokens" in chat.ask("the")
    chat.send("/bye\n")
    assert chat.leave() == 0


def test_refused_files_of_a_chat(
    terminal: Callable[..., Terminal], path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"mine": 1}')
    half = tmp_path / "half.json"
    half.write_text('{"trit_chat": 1, "messages": [{"role": "user", "content": "x"}]}')
    chat = terminal(str(path), "-t", "1", *GREEDY)
    chat.until(">>> ")
    assert "/save wrote" in chat.ask(f"/save {other}")
    assert other.read_text() == '{"mine": 1}'
    assert "/save wrote" in chat.ask(f"/load {other}")
    assert "in turn" in chat.ask(f"/load {half}")
    assert "No such file" in chat.ask(f"/load {tmp_path / 'absent'}")
    assert "saved: none" in chat.ask("/load")
    assert "no name" in chat.ask("/save")
    assert "no file" in chat.ask("/file")
    other.rename(tmp_path / "other")
    assert "session" in chat.ask(f"/load {tmp_path / 'other'}")
    assert "session" in chat.ask(f"/save {tmp_path / 'other'}")
    assert "no such setting" in chat.ask("/set mood good")
    assert "on or off" in chat.ask("/set markdown maybe")
    assert "--format xml" in chat.ask("/set format xml")
    assert "no answer" in chat.ask("/regen")
    chat.send("\x04")
    assert chat.leave() == 0


def test_ctrl_c_stops_the_answer_then_leaves(
    terminal: Callable[..., Terminal], endless: Path
) -> None:
    chat = terminal(str(endless), "-t", "1", "-c", "0", "--temp", "0", *ENDLESS)
    chat.until(">>> ")
    chat.send("the\n")
    chat.until("\n")
    chat.until_it_speaks()
    chat.send("\x03")
    assert "Ctrl-C again leaves" in chat.until(">>> ")
    assert "assistant: " in chat.ask("/show messages")  # the stopped answer was said
    chat.send("\x03")
    assert "Ctrl-C again leaves" in chat.until(">>> ")
    chat.send("\x03")
    assert "trit: interrupted" in chat.until("interrupted")
    assert chat.leave() == 130


def test_sessions(terminal: Callable[..., Terminal], path: Path, tmp_path: Path) -> None:
    """Saved when leaving, resumed with settings and cache; refused where it is another model's."""
    file = tmp_path / "talk.session"
    chat = terminal(str(path), "-t", "1", *GREEDY, "--session", str(file))
    chat.until(">>> ")
    first = chat.ask("the cat")
    chat.ask("/set top-k 7")
    chat.send("/bye\n")
    assert "2 messages saved" in chat.until("cache of")
    assert chat.leave() == 0 and file.stat().st_mode & 0o777 == 0o600

    chat = terminal(str(path), "-t", "1", *GREEDY, "--session", str(file))
    assert re.search(r"2 messages loaded.*; the next one goes on", chat.until(">>> "), re.DOTALL)
    assert "top-k 7" in chat.ask("/show") and "the cat" in chat.ask("/show messages")
    assert "cache" in chat.ask("/save named")
    assert "saved: named" in chat.ask("/load")
    assert "loaded, with the cache of" in chat.ask("/load named")
    chat.ask("more")
    assert re.search(r"\d\d of them still in the cache", chat.ask("/stats"))
    chat.send("\x04")
    assert chat.leave() == 0
    history = tmp_path / "state" / "trit" / "history"
    assert "the cat" in history.read_text() and history.stat().st_mode & 0o777 == 0o600
    key = tmp_path / "state" / "trit" / "session-key"
    assert key.stat().st_mode & 0o777 == 0o600

    other = talking_model.write(tmp_path / "other.gguf", {"general.name": "Other"})
    chat = terminal(str(other), "-t", "1", *GREEDY, "--session", str(file))
    said = chat.until(">>> ")
    assert "without the cache: it is of another model file" in said and "read all" in said
    assert shown(first.split("\n")[1]) in chat.ask("/show messages")
    chat.send("/bye\n")
    chat.leave()


def test_settings_of_a_stranger(path: Path, tmp_path: Path) -> None:
    from trit.cli._chat_session import Opened, with_settings
    from trit.errors import InvalidFileError

    for settings in (
        {"temperature": "hot"}, {"temperature": -1}, {"top_k": 1.5}, {"max_tokens": 0},
        {"max_tokens": True}, {"schema": [1]}, {"think": "loud"}, {"stop": [""]}, {"stop": "x"},
    ):  # fmt: skip
        opened = Opened(tmp_path / "s", [], None, settings, "", False)  # type: ignore[arg-type]
        with pytest.raises(InvalidFileError, match="setting"):
            with_settings(Asked(), opened)
    opened = Opened(tmp_path / "s", [], "Be.", {"temperature": 0.5, "stop": ["x"]}, "", False)
    assert with_settings(Asked(), opened) == Asked(temperature=0.5, stop=("x",), system="Be.")
    assert with_settings(Asked(temperature=1), opened).temperature == 1


def test_files_go_with_the_next_message(
    terminal: Callable[..., Terminal], path: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("a cat\n")
    chat = terminal(str(path), "-t", "1", *GREEDY)
    chat.until(">>> ")
    assert "notes.txt: " in chat.ask(f"/file {tmp_path / 'notes.txt'}")
    assert shown(expected(path, "the\n\nnotes.txt:\n\na cat")) in chat.ask("the")
    assert "expected a file with text" in chat.ask("/file /nonexistent")
    chat.send("/bye\n")
    chat.leave()


def test_json_of_a_schema(run: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}},
              "required": ["kind"], "additionalProperties": False}  # fmt: skip
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    for given in (str(file), json.dumps(schema)):
        code, out, _ = run("-p", "the", "--schema", given, "--temp", "2")
        assert code == 0 and json.loads(out)["kind"] in ("cat", "dog")
    code, out, _ = run("--format", "json", "-n", "5", stdin=b"the")
    assert code == 0 and out.startswith("{")


def test_llguidance_that_is_missing(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trit.runtime import constrain

    monkeypatch.setattr(constrain, "find_spec", lambda name: None)
    code, _, err = run("-p", "the", "--format", "json")
    assert code == 1 and "pip install 'trit[schema]'" in err


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template begins its thoughts, which at random it does not end."""
    template = talking_model.TEMPLATE.replace(
        "assistant\n",
        "assistant\n{% if enable_thinking is not defined %}<think>\n{% else %}</think>{% endif %}",
    )
    folder = tmp_path_factory.mktemp("thinker")
    return talking_model.write(folder / "model.gguf", {"tokenizer.chat_template": template})


def test_thoughts(run: Callable[..., Any], thinker: Path) -> None:
    ask = ("-p", "the", *GREEDY)
    code, out, _ = run(*ask, model=thinker)
    assert (code, out) == (0, "")
    shown = run(*ask, "--think", "show", model=thinker)[1]
    assert shown.startswith("<think>\n") and shown.endswith("\n</think>\n\n")
    found = json.loads(run(*ask, "--json", model=thinker)[1])
    assert found["reasoning"] in shown and found["reasoning_tokens"] == 8 and not found["text"]
    assert "thought for" in run(*ask, "--think", "fold", model=thinker)[2]
    assert run(*ask, "--think", "off", model=thinker)[1].strip()


def test_thoughts_on_a_terminal(terminal: Callable[..., Terminal], thinker: Path) -> None:
    chat = terminal(str(thinker), "-t", "1", *GREEDY)
    chat.until(">>> ")
    assert re.search(r"thought for [\d.]+ s, 8 tokens", chat.ask("the"))
    chat.ask("/set think hide")
    assert "thought for" not in chat.ask("the")
    chat.send("/bye\n")
    chat.leave()


def test_no_place_for_sessions(
    terminal: Callable[..., Terminal], path: Path, tmp_path: Path
) -> None:
    """A chat goes on without them."""
    (tmp_path / "state").write_text("a file where a folder should be")
    chat = terminal(str(path), "-t", "1", *GREEDY)
    assert "lines are not kept" in chat.until(">>> ")
    assert "XDG_STATE_HOME" in chat.ask("/save talk")
    assert "XDG_STATE_HOME" in chat.ask(f"/save {tmp_path / 'talk.session'}")
    assert "messages saved" in chat.ask(f"/save {tmp_path / 'talk.json'}")
    chat.send("/bye\n")
    assert chat.leave() == 0


def test_in_colour(terminal: Callable[..., Terminal], path: Path) -> None:
    """A gauge, and marks of markdown as styles, but not in JSON, whose text they are."""
    pytest.importorskip("llguidance")
    chat = terminal(str(path), "-t", "1", *GREEDY, NO_COLOR="")
    chat.until(">>> ")
    assert re.search(r"context [▰▱]{10} \d+ of 256", chat.ask("the"))
    chat.ask('/set schema {"const": "*a*"}')
    assert '"*a*"' in chat.ask("the")
    chat.ask("/set format text")
    chat.send("/bye\n")
    assert chat.leave() == 0


def test_markdown_of_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    from trit.cli._chat_answer import Shown
    from trit.runtime.generate import Chunk

    for markdown, expected in ((True, "\x1b[3ma\x1b[0m\x1b[0m\n"), (False, "*a*\n")):
        shown = Shown(Screen(color=True, terminal=True), None, markdown=markdown)
        shown.push(Chunk("*a*", ()))
        shown.finish()
        assert capsys.readouterr().out == expected
