"""`trit train`: a BitNet b1.58 model from texts, or its float twin, as a folder and a GGUF file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trit.cli._options import DryRunOfSteps, Json, Jsonl, Threads
from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.cli._progress import Progress
    from trit.training import Cost, Preparation, TrainResult

TWINS = ("float",)


def command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="What to train, or the folder of a run.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Of the run; default: the config's name."
        ),
    ] = None,
    twin: Annotated[
        str | None, typer.Option(metavar="float", help="Train the float twin instead.")
    ] = None,
    threads: Threads = None,
    dry_run: DryRunOfSteps = False,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Train a ternary model from texts, and write it as a GGUF file.

    The run's folder keeps config, tokenizer, state, log and plot. Interrupted or killed, the same
    command goes on where it stopped. docs/training.md explains the config.
    """
    from trit.cli._terminal import print_json
    from trit.training.config import load

    if twin not in (None, *TWINS):
        raise UsageError(f"--twin {twin}: expected float.")
    kinds = [twin is not None]
    if twin is None and config.is_file() and load(config).twin:
        kinds.append(True)
    found = [_train(config, out, kind, threads, dry_run=dry_run, jsonl=jsonl) for kind in kinds]
    results = [each for each in found if each is not None]
    if not results:
        return
    if dry_run:
        if json:
            print_json([each for each in results if isinstance(each, dict)])
        return
    done = [each for each in results if not isinstance(each, dict)]
    if json:
        answers = [each.to_dict() for each in done]
        print_json(answers[0] if len(answers) == 1 else answers)
        return
    print("\n".join(as_text(each) for each in done))
    if len(done) == 2:
        print(gap(*done))


def _train(
    config: Path, out: Path | None, twin: bool, threads: int | None, *, dry_run: bool, jsonl: bool
) -> "TrainResult | dict[str, Any] | None":
    """One run, from the word about its cost to its result; a dry run gives the cost.

    None, and no word, from a process that helps another one (training/processes.py).
    """
    from dataclasses import asdict

    from trit.cli._interrupts import Interrupts
    from trit.cli._terminal import note, warn
    from trit.cli._training import followed
    from trit.training import prepare

    with prepare(config, out, twin, threads) as prepared:
        if not prepared.first:
            if not dry_run:
                with Interrupts() as interrupts:
                    prepared.run(stop=lambda: interrupts.asked)
            return None
        for remark in prepared.remarks:
            warn(remark)
        cost = prepared.cost()
        note(_announcement(prepared, cost))
        if dry_run:
            return {"path": str(prepared.folder), "vocab": prepared.vocab} | asdict(cost)
        result, asked = followed(prepared, _tell, jsonl)
        if asked:  # too late for this run, not for what would follow it
            note(f"{result.gguf} is whole; the same command tells its figures, and goes on")
            raise KeyboardInterrupt
        return result


def _announcement(prepared: "Preparation", cost: "Cost") -> str:
    """What it will cost, before it starts."""
    from trit.cli._terminal import counted
    from trit.cli._training import cost_text

    kind = "its float twin" if prepared.twin else "ternary"
    model = prepared.config.model
    return (
        f"{prepared.folder}: BitNet b1.58, {kind}: {model.layers} layers of {model.width}, "
        f"{prepared.vocab:,} tokens, {counted(cost.parameters, 'parameter')}\n"
        f"{cost_text(cost, prepared.step, prepared.config.training.steps)}"
    )


def _tell(progress: "Progress", entry: dict[str, Any], jsonl: bool) -> None:
    """A line of the run's log: steps beside the bar, all else as remarks."""
    import json

    from trit.cli._terminal import note

    if entry["event"] == "step":
        progress.remark = f"loss {entry['loss']:.3f}"
    elif jsonl:
        note(json.dumps(entry))
    elif entry["event"] == "held_out":
        note(f"step {entry['step']:,}: {entry['bits_per_byte']:.4f} bits per byte held out")
    else:
        note(f"step {entry['step']:,}: {entry['prompt']}{entry['text']}")


def as_text(result: "TrainResult") -> str:
    """The answer for people."""
    from trit.cli._terminal import size
    from trit.cli._training import NO_PLOT
    from trit.training import duration

    lines = [
        f"{result.gguf}: {result.kind}, {result.parameters:,} parameters, "
        f"{size(result.gguf_bytes)}; {result.folder}: the same for transformers",
        f"{result.bits_per_byte:.4f} bits per byte on {result.held_out_bytes:,} bytes held out, "
        f"after {result.tokens:,} tokens in {duration(result.seconds)}",
        f"the file against torch: mean KLD {result.kld:.2g} nats, same top token "
        f"{result.same_top:.2%}, over {result.compared:,} tokens",
        *(f"fallback: {each}" for each in result.fallbacks),
    ]
    if result.plot is None:
        lines.append(NO_PLOT)
    return "\n".join(lines)


def gap(ternary: "TrainResult", twin: "TrainResult") -> str:
    """How much worse ternary is than its twin, where both were measured on one text."""
    if ternary.held_out_sha256 != twin.held_out_sha256:
        return "the twin was measured on other tokens: the two cannot be compared"
    more = ternary.bits_per_byte / twin.bits_per_byte - 1
    return f"ternary against its float twin: {more:+.2%} bits per byte"
