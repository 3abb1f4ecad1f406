"""`trit quantize`: a model of any source to a GGUF of a named mix such as Q4_K_M.

The arguments of llama-quantize work too: IN OUT TYPE [THREADS], and IN TYPE, which writes
ggml-model-TYPE.gguf beside IN. With --to, a folder that other engines load is written instead.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import typer

from trit.cli._options import DryRun, Json, Jsonl, MaxSize, Pure, Threads
from trit.errors import UsageError
from trit.machine.processors import MAX_THREADS

if TYPE_CHECKING:
    from trit.files.imatrix import Imatrix
    from trit.job.prepare import PathLike

T = TypeVar("T", int, str, Path)


class Words(NamedTuple):
    """What the arguments after the source say."""

    out: Path | None
    type: str | None
    threads: int | None


def command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder, GGUF file or model name.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OUT.gguf] [TYPE] [THREADS]", help="The file to write, the mix."),
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="The mix, such as Q4_K_M.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT.gguf", help="The file to write.")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Importance data of llama.cpp.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|default",
            help="Measure importance data on this text first; default: on trit's own.",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(metavar="fast|balanced|best", help="With more of a text, and of time."),
    ] = None,
    quantizer: Annotated[
        str | None,
        typer.Option(metavar="rtn|gptq|learned|hqq|awq", help="Force one; hqq and awq: --to."),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=TYPE", help="Type of the tensors so named; repeatable."),
    ] = None,
    output_tensor_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Type of the output matrix.")
    ] = None,
    token_embedding_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Type of the embedding.")
    ] = None,
    pure: Pure = False,
    fit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The best file of at most this size: 3.2GiB.")
    ] = None,
    bpw: Annotated[
        float | None, typer.Option(metavar="BITS", help="The best of so many bits per weight.")
    ] = None,
    max_kld: Annotated[
        float | None, typer.Option(metavar="NATS", help="The smallest predicted to lose no more.")
    ] = None,
    fit_ram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The best that runs in this memory.")
    ] = None,
    ctx: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of context to run with (--fit-ram).")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="awq|compressed-tensors|hqq", help="Write a folder for other engines."
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(metavar="N", help="Of a weight (--to). Default: 4.")
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Weights that share a scale (--to). Default: 128."),
    ] = None,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="Without zeros (--to compressed-tensors).")
    ] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Measure the file against SRC, write it into the file.")
    ] = False,
    max_size: MaxSize = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="TQ1_0 and TQ2_0 from weights that are not ternary.")
    ] = False,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", hidden=True, help="Always allowed, and warned of.")
    ] = False,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Quantize a model to a named mix, or the best for a budget.

    An existing OUT.gguf is replaced once the new file is complete. Interrupted, the same command
    goes on where it stopped. With --max-size, shards OUT-00001-of-0000N.gguf as 'trit split' cuts
    them, which replace nothing.
    """
    from trit import recipe
    from trit.cli._resolve import resolve
    from trit.cli.writing.job import carry_out
    from trit.job import efforts
    from trit.quantize import check_shards, prepare_calibrated

    budgeted = any(each is not None for each in (fit, bpw, max_kld, fit_ram, ctx))
    check_shards(max_size, budget=budgeted, card=card)
    if to is not None:
        from trit.cli.writing.export import export

        if budgeted:
            raise UsageError("a budget and --to: formats are chosen for GGUF files alone.")
        if card:
            raise UsageError("--card is for GGUF files: leave it out, or leave out --to.")
        if type_ is not None or len(words or []) > 1:
            raise UsageError("a type and --to: name one of them.")
        if max_size is not None:
            raise UsageError("--max-size and --to: files of a folder have at most 4 GiB.")
        if effort is not None:
            raise UsageError("--effort and --to: folders take --quantizer.")
        if pure or tensor_type or output_tensor_type or token_embedding_type or force:
            raise UsageError(
                "--pure, --tensor-type, --output-tensor-type, --token-embedding-type and --force "
                "are for GGUF files: leave them out, or leave out --to."
            )
        folder = _one("output", out, Path(words[0]) if words else None)
        export(
            resolve(source, jsonl=jsonl), folder, to,
            bits=4 if bits is None else bits, group_size=128 if group_size is None else group_size,
            quantizer=quantizer, symmetric=symmetric, imatrix=imatrix,
            calibration=calibration, threads=threads, dry_run=dry_run, json=json, jsonl=jsonl,
        )  # fmt: skip
        return
    if bits is not None or group_size is not None or symmetric:
        raise UsageError("--bits, --group-size and --symmetric are for folders: add --to.")
    given = read_words(words or [], type_)
    count = _one("thread count", threads, given.threads)
    wishes = recipe.overrides(
        tensor_type or (), output_tensor_type, token_embedding_type, pure=pure
    )
    if budgeted:
        from trit.budget import target as budget_of
        from trit.cli.writing.budget import quantize_to

        budget = budget_of(fit, bpw, max_kld, fit_ram, ctx)
        assert budget is not None
        if type_ is not None or given.type is not None or force:
            raise UsageError("a type or --force, and a budget: name one of them.")
        place = _one("output", out, given.out)
        if place is None and not dry_run:
            raise UsageError("no output: trit quantize SRC OUT.gguf --fit SIZE, or --dry-run")
        quantize_to(
            resolve(source, jsonl=jsonl), place, budget, wishes, imatrix=imatrix,
            calibration=calibration, threads=count,
            feedback=efforts.feedback(quantizer, effort, calibration, count), dry_run=dry_run,
            json=json, jsonl=jsonl, card=card,
        )  # fmt: skip
        return
    mix = _one("type", type_, given.type)
    if mix is None:
        known = "Q8_0, Q4_K_M, Q3_K_M …"
        raise UsageError(f"no type: trit quantize SRC OUT.gguf --type TYPE, such as {known}")
    name = recipe.mix(mix).name
    target = _one("output", out, given.out)
    path = resolve(source, jsonl=jsonl)
    if target is None and not dry_run:
        if type_ is not None:
            raise UsageError("no output: trit quantize SRC OUT.gguf --type TYPE, or --dry-run")
        # As llama-quantize names it; beside the source, but never in the cache of pulled models.
        beside = Path(source).parent if Path(source).is_file() else Path()
        target = beside / f"ggml-model-{name}.gguf"
    feedback = efforts.feedback(quantizer, effort, calibration, count)
    with prepare_calibrated(
        path, target, name, wishes, imatrix=imatrix, calibration=calibration,
        measured=lambda beside, text: _measured(path, beside, text, count, jsonl),
        threads=count, dry_run=dry_run, force=force, feedback=feedback,
    ) as job:  # fmt: skip
        if max_size is not None:
            job.shard(max_size)
        if card:
            from trit.job.carding import reserve

            reserve(job)
        carry_out(job, dry_run=dry_run, json=json, jsonl=jsonl, card=card, threads=count)


def _measured(
    path: Path, target: "PathLike", calibration: "PathLike", threads: int | None, jsonl: bool
) -> "Imatrix":
    """Importance data on a text, with progress and remarks on stderr."""
    from trit.cli._measuring import Measuring, remarks
    from trit.cli._terminal import note, warn
    from trit.job import importance

    with Measuring(jsonl=jsonl) as progress:
        data, found = importance.measured(path, target, calibration, threads, progress, note)
    for remark in [] if found is None else remarks(found):
        warn(remark)
    how = "found" if found is None else f"measured in {found.seconds:.0f} s, kept"
    note(f"importance data {how} in {data.path}")
    return data


def read_words(words: list[str], type_option: str | None) -> Words:
    """[OUT] [TYPE] [THREADS] as llama-quantize reads them, each optional; UsageError for others."""
    from trit import recipe

    rest = list(words)
    out = None
    # A first word that is a mix is the type, unless the type was named or another mix follows.
    if rest and (type_option is not None or not recipe.is_mix(rest[0])):
        out = Path(rest.pop(0))
    mix = None
    if rest and (type_option is None or (recipe.is_mix(rest[0]) and not rest[0].isdecimal())):
        mix = rest.pop(0)
    threads = None
    if rest and rest[0].isdecimal() and int(rest[0]) > 0:
        threads = int(rest.pop(0))
        if threads > MAX_THREADS:
            raise UsageError(f"{threads} threads: expected a number from 1 to {MAX_THREADS}.")
    if rest:
        raise UsageError(
            f"too many arguments: {' '.join(rest)}. Expected SRC OUT.gguf TYPE [THREADS]"
        )
    return Words(out, mix, threads)


def _one(what: str, option: T | None, word: T | None) -> T | None:
    """The value given by flag or by place; UsageError if both, and they differ."""
    if option is not None and word is not None and str(option).upper() != str(word).upper():
        raise UsageError(f"the {what} is given twice: {word} and {option}")
    return option if option is not None else word
