"""`trit run`: one answer, or a chat on a terminal; a story by trit's own model where none is named.

stdout carries the answer alone. Who names a prompt (-p, -f, or stdin that is no terminal) gets one
answer; without one, on a terminal, it is a chat (chat/talk.py). The model's chat template is used
where it has one, as llama-cli does; --no-cnv goes on from the bare text.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import (
    BatchSize,
    CacheTypes,
    Json,
    MinP,
    ModelOption,
    Repack,
    RepeatPenalty,
    System,
    Temp,
    Threads,
    TopK,
    TopP,
    cache_type,
)
from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.cli.chat.screen import Screen
    from trit.cli.chat.settings import Asked
    from trit.runtime.model import Model


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
        list[Path] | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="The prompt, or what -p is about; repeatable."
        ),
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
    threads: Threads = None,
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
    form: Annotated[
        str, typer.Option("--format", metavar="text|json", help="json: the answer is an object.")
    ] = "text",
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            "--json-schema",
            "-j",
            metavar="FILE|JSON",
            help="The answer is JSON of this JSON schema.",
        ),
    ] = None,
    think: Annotated[
        str | None,
        typer.Option(
            "--think",
            metavar="show|fold|hide|off",
            help="Thoughts before an answer; off: none. Default: fold, in a pipe hide.",
            show_default=False,
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="NAME|FILE",
            help="A chat to go on with, if there is one, and to save when leaving.",
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
    from trit.cli._resolve import chosen
    from trit.cli.chat.prompt import read_prompt
    from trit.cli.chat.screen import Screen
    from trit.cli.chat.settings import Asked, biases, form_of

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
        schema=form_of(form, schema),
        think=think,
    )
    asked.check()
    text = read_prompt(prompt, file or ())
    chat_possible = sys.stdin.isatty() and sys.stdout.isatty()
    if text is None and own and not conversation and session is None:
        text = ""  # it tells a story from its beginning
    if text is None and (json or not chat_possible):
        raise UsageError(f"no prompt: trit run {name} -p TEXT, or pipe a text into it.")
    if text is not None and session is not None:
        raise UsageError("--session is for a chat; here is a prompt. Leave one of them out.")
    kind = cache_type(cache)
    chat = conversation is not False
    with open_model(name, ctx, threads, batch, draft_max, kind, repack, chat=chat) as opened:
        _warn_if_random(opened)
        _run(opened, asked, text, screen, json, session)


def _own_model() -> str:
    """The path of the model that comes with trit; says what it is."""
    from trit import zoo
    from trit.cli._terminal import note

    note(f"no MODEL: {zoo.OWN}, a toy that tells stories; 'trit list' names real ones")
    return str(zoo.pull(zoo.OWN))


def _run(
    model: "Model",
    asked: "Asked",
    text: str | None,
    screen: "Screen",
    json: bool,
    session: str | None,
) -> None:
    if text is None:
        from trit.cli.chat.talk import talk

        talk(model, asked, screen, session)
    else:
        from trit.cli.chat.once import answer_once

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
