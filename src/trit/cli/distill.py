"""`trit distill`: a model in few bits, or one of its own, trained to say what its teacher says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trit.cli._options import DryRunOfSteps, Json, Jsonl, Threads

if TYPE_CHECKING:
    from trit.cli._progress import Progress
    from trit.training import Cost
    from trit.training.distill import DistillResult, DistillSettings, Preparation

# A DistillSettings' own defaults, which are not written twice: None is left out.
Whole = int | None
Number = float | None


def command(
    teacher: Annotated[str, typer.Argument(help="The model to learn from: path or zoo name.")],
    student: Annotated[
        str,
        typer.Option(
            "--student",
            metavar="TYPE|FILE",
            help="Q4_K_M, TQ2_0 …, or a GGUF to train as it is.",
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FILE", help="Texts; none: what the teacher writes."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What TYPE is made of, in place of the teacher."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Of the run; default: named by both."),
    ] = None,
    steps: Annotated[Whole, typer.Option(help="Default: 200.")] = None,
    batch: Annotated[
        Whole, typer.Option("--batch", help="Sequences of a step. Default: 8.")
    ] = None,
    context: Annotated[
        Whole, typer.Option("--context", "-c", help="Tokens of a sequence. Default: 256.")
    ] = None,
    rate: Annotated[
        Number, typer.Option(help="Of weights, as a share of their matrix' root mean square.")
    ] = None,
    scale_rate: Annotated[Number, typer.Option(help="Of scales, as a share of each.")] = None,
    warmup: Annotated[Whole, typer.Option(help="Steps in which rates rise. Default: 10.")] = None,
    top_k: Annotated[
        Whole, typer.Option(help="Likeliest tokens to tell apart. Default: 0, all.")
    ] = None,
    relation: Annotated[
        Number, typer.Option(help="Share of the gradient for relations of q, k, v. Default: 0.")
    ] = None,
    cross_entropy: Annotated[
        Number, typer.Option(help="Weight of the cross entropy with the text. Default: 0.")
    ] = None,
    held_out: Annotated[
        Number, typer.Option(help="Share of --data that is measured on. Default: 0.05.")
    ] = None,
    measure_every: Annotated[
        Whole, typer.Option(help="Steps between measurements. Default: 25.")
    ] = None,
    measure_windows: Annotated[
        Whole, typer.Option(help="Sequences that a measurement reads. Default: 16.")
    ] = None,
    checkpoint_every: Annotated[
        Whole, typer.Option(help="Steps between saved states. Default: 25.")
    ] = None,
    seed: Annotated[Whole, typer.Option("--seed", "-s", help="Default: 0.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Activations in bfloat16.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda; auto: a GPU if there is one.")] = "auto",
    imatrix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Importance data for the first quantization."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text to measure them on. Default: trit's own."),
    ] = None,
    effort: Annotated[
        str | None, typer.Option(help="Of the first quantization: fast, balanced, best.")
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option("--tensor-type", metavar="PATTERN=TYPE", help="As for trit quantize."),
    ] = None,
    threads: Threads = None,
    dry_run: DryRunOfSteps = False,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Train a student of a model through the roundings of its file.

    The run's folder keeps settings, data, state, log and plot. Interrupted or killed, the same
    command goes on where it stopped. docs/distillation.md explains the settings.
    """
    from dataclasses import asdict

    from trit.cli._terminal import print_json
    from trit.training.distill import DistillSettings

    wished = {
        "steps": steps, "batch": batch, "context": context, "rate": rate, "scale_rate": scale_rate,
        "warmup": warmup, "top_k": top_k, "relation": relation, "cross_entropy": cross_entropy,
        "held_out": held_out, "measure_every": measure_every, "measure_windows": measure_windows,
        "checkpoint_every": checkpoint_every, "seed": seed,
    }  # fmt: skip
    given: dict[str, Any] = {name: each for name, each in wished.items() if each is not None}
    settings = DistillSettings(
        student, tuple(data or ()), init, bf16=bf16, gradient_checkpointing=gradient_checkpointing,
        device=device, imatrix=imatrix, calibration=calibration, effort=effort,
        tensor_types=tuple(tensor_type or ()), **given,
    )  # fmt: skip
    found = _distill(teacher, settings, out, threads, dry_run=dry_run, jsonl=jsonl)
    if isinstance(found, tuple):
        if json:
            print_json({"path": str(found[0])} | asdict(found[1]))
    elif json:
        print_json(found.to_dict())
    else:
        print(as_text(found))


def _distill(
    teacher: str,
    settings: "DistillSettings",
    out: Path | None,
    threads: int | None,
    *,
    dry_run: bool,
    jsonl: bool,
) -> "DistillResult | tuple[Path, Cost]":
    """A run, from its folder to its result; a dry run gives folder and cost."""
    from trit.cli._progress import Progress
    from trit.cli._terminal import note, warn
    from trit.cli._training import followed
    from trit.training.distill import prepare

    with Progress(jsonl=jsonl) as progress:
        prepared = prepare(teacher, settings, out, threads, progress)
    with prepared:
        for remark in prepared.remarks:
            warn(remark)
        cost = prepared.cost()
        note(_announcement(prepared, cost))
        if dry_run:
            return prepared.folder, cost
        return followed(prepared, _tell, jsonl)[0]


def _announcement(prepared: "Preparation", cost: "Cost") -> str:
    """What it will cost, before it starts."""
    from trit.cli._terminal import counted
    from trit.cli._training import cost_text

    return (
        f"{prepared.folder}: {prepared.start.path.name}, {counted(cost.parameters, 'parameter')}\n"
        f"{cost_text(cost, prepared.step, prepared.settings.steps)}, and measurements"
    )


def _tell(progress: "Progress", entry: dict[str, Any], jsonl: bool) -> None:
    """A line of the run's log: steps beside the bar, measurements as remarks."""
    import json

    from trit.cli._terminal import note

    if entry["event"] == "step":
        progress.remark = f"KLD {entry['kld']:.4f}"
    elif jsonl:
        note(json.dumps(entry))
    else:
        note(
            f"step {entry['step']:,}: KLD {entry['kld']:.5f} held out, same top token "
            f"{entry['same_top']:.2%}"
        )


def as_text(result: "DistillResult") -> str:
    """The answer for people."""
    from trit.cli._terminal import size
    from trit.cli._training import NO_PLOT
    from trit.training import duration

    change = result.kld_after / result.kld_before - 1
    which = (
        f"of step {result.best_step:,}" if result.best_step else "as it began: no step was better"
    )
    lines = [
        f"{result.gguf}: {result.student}, {result.parameters:,} parameters, "
        f"{size(result.gguf_bytes)}; {which}",
        f"mean KLD {result.kld_before:.5f} → {result.kld_after:.5f} nats ({change:+.1%}), same top "
        f"token {result.same_top_before:.2%} → {result.same_top_after:.2%},",
        f"by the engine, over {result.compared:,} tokens held out; the file against torch: "
        f"{result.kld_torch:.2g} nats",
        f"{result.tokens:,} tokens in {duration(result.seconds)}",
    ]
    if result.plot is None:
        lines.append(NO_PLOT)
    return "\n".join(lines)
