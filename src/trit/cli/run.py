"""`trit run`: one answer, or a chat on a terminal; a story by trit's own model where none is named.

stdout carries the answer alone. Who names a prompt (-p, -f, or stdin that is no terminal) gets one
answer; without one, on a terminal, it is a chat (_chat.py). The model's chat template is used where
it has one, as llama-cli does; --no-cnv goes on from the bare text.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._cache_type import CacheTypes, cache_type
from trit.cli._options import (
    BatchSize,
    Json,
    MinP,
    ModelOption,
    Repack,
    RepeatPenalty,
    RunThreads,
    System,
    Temp,
    TopK,
    TopP,
)
from trit.errors import InvalidFileError, UsageError

if TYPE_CHECKING:
    from trit.cli._chat_settings import Asked
    from trit.cli._chat_terminal import Screen
    from trit.runtime.model import Model

STDIN_PATIENCE = 1.0  # seconds until it is said what is waited for


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Folder, GGUF file or model name; default: trit's own, which tells stories.",
            show_default=False,
        ),
    ] = None,
    model_option: ModelOption = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="Answer this and leave.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The prompt, from a file.")
    ] = None,
    n_predict: Annotated[
        int,
        typer.Option(
            "--n-predict",
            "--predict",
            "--max-tokens",
            "-n",
            metavar="N",
            help="Most tokens of an answer; -1: until it ends.",
        ),
    ] = -1,
    system: System = None,
    conversation: Annotated[
        bool | None,
        typer.Option(
            "--conversation/--no-conversation",
            "-cnv/-no-cnv",
            "--cnv/--no-cnv",
            help="With the chat template, or go on from the bare text.",
            show_default=False,
        ),
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            "--ctx-size",
            "--ctx",
            "-c",
            metavar="N",
            min=0,
            show_default=False,
            help="Context in tokens; 0: the model's own. Default: 4096 or the model's own.",
        ),
    ] = None,
    threads: RunThreads = None,
    batch: BatchSize = None,
    draft_max: Annotated[
        int | None,
        typer.Option(
            "--draft-max",
            "--draft",
            "--draft-n",
            "--spec-draft-n-max",
            min=0,
            metavar="N",
            help="Most tokens guessed ahead where the text repeats itself; 0: none; default: 15.",
        ),
    ] = None,
    cache: CacheTypes = None,
    repack: Repack = None,
    temp: Temp = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repeat_penalty: RepeatPenalty = None,
    repeat_last_n: Annotated[
        int | None,
        typer.Option("--repeat-last-n", metavar="N", help="Tokens the penalties see; -1: all."),
    ] = None,
    presence_penalty: Annotated[
        float | None, typer.Option("--presence-penalty", metavar="X", help="0: off.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option("--frequency-penalty", metavar="X", help="0: off.")
    ] = None,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option("--logit-bias", metavar="ID±X", help="As 15043+1, 15043-inf; repeatable."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", metavar="N", help="-1: a new one each time.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop", "--reverse-prompt", "-r", metavar="TEXT", help="Ends an answer; repeatable."
        ),
    ] = None,
    color: Annotated[str, typer.Option("--color", metavar="auto|on|off")] = "auto",
    json: Json = False,
) -> None:
    """Answer a prompt, or chat on a terminal.

    With a prompt (-p, -f, stdin that is no terminal) one answer; else a chat, or without MODEL a
    story. Settings not given are the model's own, or temp 0.8, top-k 40, top-p 0.95, min-p 0.05.
    The time to the first token (first_token_seconds) counts from the start of the process, with all
    that loading takes.
    """  # fmt: skip
    from trit.cli._chat_settings import Asked, biases
    from trit.cli._chat_terminal import Screen
    from trit.cli._model_argument import chosen

    own = model is None and model_option is None
    name = _own_model() if own else chosen("run", model, model_option)
    if n_predict < -1 or n_predict == 0:
        raise UsageError(f"-n {n_predict}: expected 1 or more, or -1 for no limit.")
    screen = Screen.of(color)
    asked = Asked(
        system=system,
        conversation=conversation,
        max_tokens=None if n_predict < 0 else n_predict,
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        penalty_last_n=repeat_last_n,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=biases(logit_bias or []),
        seed=seed,
        stop=tuple(stop or ()),
    )
    asked.check()
    text = read_prompt(prompt, file)
    chat_possible = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if text is None and own and not conversation:
        text = ""  # it tells a story from its beginning
    if text is None and (json or not chat_possible):
        raise UsageError(f"no prompt: trit run {name} -p TEXT, or pipe a text into it.")
    kind = cache_type(cache)
    chat = conversation is not False
    with open_model(name, ctx, threads, batch, draft_max, kind, repack, chat=chat) as opened:
        _warn_if_random(opened)
        _run(opened, asked, text, screen, json)


def _own_model() -> str:
    """The path of the model that comes with trit; says what it is."""
    from trit import zoo
    from trit.cli._terminal import note

    note(f"no MODEL: {zoo.OWN}, a toy that tells stories; 'trit list' names real ones")
    return str(zoo.pull(zoo.OWN))


def _run(model: "Model", asked: "Asked", text: str | None, screen: "Screen", json: bool) -> None:
    if text is None:
        from trit.cli._chat import talk

        talk(model, asked, screen)
    else:
        from trit.cli._chat_once import answer_once

        answer_once(model, asked, text, screen, json=json)


def _warn_if_random(model: "Model") -> None:
    """Files of `trit synth` look like models and answer like none."""
    if "trit.synth.shape" in model.metadata:
        from trit.cli._terminal import warn

        warn(f"{model.path}: the weights are random ('trit synth'); the answer means nothing")


def open_model(
    name: str,
    ctx: int | None,
    threads: int | None,
    batch: int | None,
    draft_max: int | None,
    cache: str,
    repack: bool | None,
    *,
    chat: bool,
) -> "Model":
    """Load a model by path or name, pulling what is not here."""
    path = Path(name).expanduser()
    if not path.exists():  # the zoo is not imported for a path
        from trit.cli._resolve import resolve

        path = resolve(name)
    from trit.runtime.model import DRAFT_MAX, load
    from trit.runtime.scheduler import PASS_ROWS

    draft_max = DRAFT_MAX if draft_max is None else draft_max
    return load(
        path, ctx, threads, batch=batch or PASS_ROWS, draft_max=draft_max, cache_type=cache,
        repack=repack, chat=chat,
    )  # fmt: skip


def read_prompt(prompt: str | None, file: Path | None) -> str | None:
    """The text of -p or -f and then that of stdin; None if there is neither.

    One newline at the end of a file or of stdin is not part of the prompt, as for llama.cpp.
    """
    if prompt is not None and file is not None:
        raise UsageError("two prompts: -p and -f. Give one of them.")
    if file is not None:
        try:
            prompt = _text(str(file), file.read_bytes())
        except OSError as error:
            problem = f"expected a file with the prompt, got: {error.strerror}. Check -f."
            raise InvalidFileError(file, "", problem) from None
    piped = _read_stdin(waiting=prompt is not None)
    if not piped:
        return prompt
    return piped if not prompt else f"{prompt}\n\n{piped}"


def _read_stdin(*, waiting: bool) -> str | None:
    """All of stdin, None if it is a terminal or closed. `waiting`: there is a prompt already."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    if waiting:
        _say_if_silent()
    return _text("stdin", sys.stdin.buffer.read())


def _say_if_silent() -> None:
    """A pipe that somebody else holds open would make the command wait without a word."""
    import select

    from trit.cli._terminal import note

    try:
        ready, _, _ = select.select([sys.stdin], [], [], STDIN_PATIENCE)
    except (OSError, ValueError):  # nothing that can be waited for
        return
    if not ready:
        note("waiting for the rest of the prompt on stdin (</dev/null: there is none)")


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InvalidFileError(
            name, f"byte {error.start}", "expected UTF-8 text; convert it first."
        ) from None
