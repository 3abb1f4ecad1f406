"""`trit compare`: the same prompts to several quants, then votes without names.

Answers are made once and kept in the study's file; people vote on a terminal or on the page, a
machine by likelihood. stdout carries results alone.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import (
    Host,
    Json,
    Jsonl,
    MinP,
    Port,
    RepeatPenalty,
    System,
    Temp,
    Threads,
    TopK,
    TopP,
)
from trit.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from trit.compare import Asking, Store
    from trit.compare.study import Arm

EPSILON = 0.02  # compare/judge.py's, which is not imported for --help


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...", help="Two or more; none: those of the study.", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help='One a line; .jsonl: {"prompt": …}.'),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The study, new or gone on with.")
    ] = Path("study.sqlite"),
    n_predict: Annotated[
        int | None,
        typer.Option(
            "--n-predict",
            "--max-tokens",
            "-n",
            metavar="N",
            help="Most tokens of an answer; default: 200.",
        ),
    ] = None,
    system: System = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            "--ctx",
            "--ctx-size",
            "-c",
            metavar="N",
            help="Prompt and answer; default: 4096 or less.",
        ),
    ] = None,
    threads: Threads = None,
    temp: Temp = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repeat_penalty: RepeatPenalty = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", "-s", metavar="N", help="Of answers, orders, sides; default: 0."),
    ] = None,
    catch_every: Annotated[
        int | None,
        typer.Option(
            "--catch-every",
            metavar="N",
            help="Each so manieth prompt also pairs a model with itself; 0: none; default: 10.",
        ),
    ] = None,
    belief: Annotated[
        bool | None,
        typer.Option(
            "--belief/--no-belief",
            show_default=False,
            help="Ask after each vote which file is believed the heavier; default: yes.",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="MODEL", help="Have a reference judge by likelihood."),
    ] = None,
    epsilon: Annotated[
        float, typer.Option("--epsilon", metavar="X", help="Nats per token of the judge's ties.")
    ] = EPSILON,
    own: Annotated[
        int | None,
        typer.Option(
            "--own",
            metavar="N",
            min=0,
            help="Prompts of a voter's own, at most; 0: none; default: 10.",
        ),
    ] = None,
    with_own: Annotated[
        bool, typer.Option("--with-own", help="Results: with votes on voters' own prompts.")
    ] = False,
    results: Annotated[bool, typer.Option("--results", help="What the votes say by now.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Vote in a browser.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    api_key: Annotated[
        list[str] | None, typer.Option("--api-key", metavar="KEY", help="Wanted by the page.")
    ] = None,
    named: Annotated[
        bool, typer.Option("--named", help="Vote again on what was voted on blind, with names.")
    ] = False,
    voter: Annotated[
        str, typer.Option("--voter", metavar="NAME", help="Who votes on the terminal.")
    ] = "terminal",
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Blind test: which quant do people prefer, and can they tell?

    Makes the answers, then asks for votes on a terminal, or with --page in a browser. --results
    prints win rates with 95% intervals, Bradley-Terry strengths, whether people can tell, and how
    many votes more would settle it. --judge adds a machine's opinion.
    """  # fmt: skip
    from trit.cli.chat.settings import Asked
    from trit.cli.study.making import judged, make, study

    if results and (page or named):
        raise UsageError("--results prints and leaves: it goes with neither --page nor --named.")
    if json and (page or named):
        raise UsageError("--json prints and leaves: it goes with neither --page nor --named.")
    if with_own and (page or not (results or json or judge)):
        raise UsageError("--with-own is about results: it goes with --results or --json.")
    if own and (named or results or json):
        raise UsageError("--own is about blind votes: not with --named, --results or --json.")
    if epsilon < 0:
        raise UsageError(f"--epsilon {epsilon:g}: expected 0 or more.")
    asked = Asked(
        system=system,
        max_tokens=n_predict,
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        seed=seed,
    )
    asked.check()
    if page:
        _require_server()
    with study(models or [], prompts, output, asked, ctx, catch_every, belief) as store:
        if not results:
            make(store, threads, jsonl)
        if judge is not None:
            judged(store, judge, threads, jsonl)
        if results or json or (judge is not None and not page):
            _print(store, epsilon, with_own, json)
        elif page:
            arm, asking = _arm(store, named, own, threads)
            _serve(store, arm, asking, host, port, tuple(api_key or ()))
        elif sys.stdin.isatty() and sys.stdout.isatty():
            from trit.cli.study.voting import vote

            vote(store, *_arm(store, named, own, threads), voter)
        else:
            _say_what_next(output)


def _arm(
    store: "Store", named: bool, own: int | None, threads: int | None
) -> "tuple[Arm, Asking | None]":
    """What is voted on, and what answers prompts of a voter's own, if anything does."""
    from trit.compare import Asking
    from trit.compare.asking import MOST_PROMPTS

    if named:
        return "named", None
    return "blind", None if own == 0 else Asking(store, own or MOST_PROMPTS, threads)


def _print(store: "Store", epsilon: float, own: bool, json: bool) -> None:
    from trit.cli._terminal import print_json
    from trit.cli.study.results import as_text
    from trit.compare import results

    found = results(store, epsilon, own)
    if json:
        print_json(found.to_dict())
    else:
        print(as_text(found))


def _require_server() -> None:
    try:
        import trit.server.run  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"--page needs {error.name or 'fastapi and uvicorn'}: pip install 'trit[serve]'."
        ) from None


def _serve(
    store: "Store",
    arm: "Arm",
    asking: "Asking | None",
    host: str,
    port: int,
    keys: tuple[str, ...],
) -> None:
    from trit.cli._terminal import note
    from trit.compare import Voting
    from trit.server.run import serve_study
    from trit.server.settings import Settings

    serve_study(
        Voting(store, arm),
        Settings(host=host, port=port, api_keys=keys),
        lambda address: note(f"vote at {address}/#blind; Ctrl-C stops, votes are kept"),
        asking,
    )


def _say_what_next(output: Path) -> None:
    from trit.cli._terminal import note

    name = "" if output == Path("study.sqlite") else f" -o {output}"
    note(
        f"vote on a terminal: trit compare{name}\n"
        f"in a browser:       trit compare{name} --page\n"
        f"see results:        trit compare{name} --results"
    )
