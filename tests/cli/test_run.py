"""`trit run`: one answer through pipes, wrong input, Ctrl-C."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import talking_model
from running import ENDLESS, GREEDY, expected
from trit import cli
from trit.runtime.model import load


@pytest.fixture
def run(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`run("-p", "x", stdin=b"")`: exit code, stdout, stderr of `trit run MODEL …`."""

    def call(*arguments: str, stdin: bytes = b"", model: object = talker) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        named = [] if model is None else [str(model)]
        code = cli.main(["run", *named, "-t", "1", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_one_answer(run: Callable[..., Any], talker: Path) -> None:
    code, out, err = run("-p", "the", *GREEDY)
    assert (code, out) == (0, expected(talker, "the") + "\n")
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


def test_prompts_from_everywhere(run: Callable[..., Any], talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("the ñ\n".encode())
    assert run("-f", str(file), *GREEDY)[1] == expected(talker, "the ñ") + "\n"
    assert run(*GREEDY, stdin=b"the\r\n")[1] == expected(talker, "the") + "\n"
    both = run("-p", "the", *GREEDY, stdin=b"cat\n")[1]
    assert both == expected(talker, "the\n\ncat") + "\n"
    assert run("-p", "the", "-no-cnv", *GREEDY)[1] == expected(talker, "the", chat=False) + "\n"
    second = tmp_path / "second.txt"
    second.write_text("cat\n")
    about = run("-p", "the", "-f", str(second), *GREEDY)[1]
    assert about == both
    two = run("-p", "the", "-f", str(file), "-f", str(second), *GREEDY)[1]
    assert two == expected(talker, "the\n\nprompt.txt:\n\nthe ñ\n\nsecond.txt:\n\ncat") + "\n"
    told = run("-p", "the", "-sys", "Be brief.", *GREEDY)[1]
    assert told == expected(talker, "the", system="Be brief.") + "\n"


def test_old_habits(run: Callable[..., Any], talker: Path) -> None:
    code, out, err = run("-m", str(talker), "-n", "8", "--repeat_penalty", "1.1", "--color",
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


def test_json(run: Callable[..., Any], talker: Path) -> None:
    code, out, _ = run("-p", "the", *GREEDY, "--json", "-s", "5")
    answer = json.loads(out)
    assert code == 0
    assert answer["text"] == expected(talker, "the")
    assert (answer["tokens"], answer["seed"], answer["finish_reason"]) == (8, 5, "length")
    with load(talker) as model:
        assert answer["prompt_tokens"] == len(model.prompt([{"role": "user", "content": "the"}]))
    assert answer["prompt_tps"] > 0 and answer["generation_tps"] > 0
    assert answer["first_token_seconds"] > 0
    one = json.loads(run("-p", "the", "-n", "1", "--json")[1])
    assert one["generation_tps"] is None


def test_the_first_token_counts_from_the_start_of_the_process(talker: Path) -> None:
    begun = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-m", "trit", "run", str(talker), "-p", "the", "-n", "2", "--json"],
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


def test_stop_and_context(run: Callable[..., Any], talker: Path) -> None:
    whole = expected(talker, "the")
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
