"""Quantize a model to a named mix or to a budget, as one GGUF file.

    quantize("model-f16.gguf", "out.gguf", "Q4_K_M", imatrix="imatrix.gguf")
    quantize("model-f16.gguf", "out.gguf", fit="3.2GiB")

What it adds under `trit.*`: `trit.version`, `trit.recipe` (the mix and the overrides, JSON)
and `trit.source.sha256`: of the source file, or, where the source is several files, of the list of
them as `sha256sum` prints it, sorted by name. Reading the source once more for that costs about a
second per gigabyte; in exchange a file can be traced, rebuilt, and resumed safely.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trit import recipe, zoo
from trit.errors import UnsupportedError, UsageError
from trit.files import imatrix as importance_files
from trit.files.source import Source, open_source, refuse_overwrite, trit_version
from trit.job import ConvertResult, Job, Progress, efforts
from trit.job.prepare import (
    PathLike,
    check_whole,
    copied_values,
    encoder,
    importance_keys,
    rounding_warnings,
    tokenizer_warnings,
    weights_of,
)
from trit.recipe import Choice, Overrides
from trit.recipe._mix_rules import Mix

if TYPE_CHECKING:  # it brings an engine
    from trit.job.feedback import Feedback

__all__ = ["QuantizeResult", "prepare_quantize", "quantize"]

FEW_BITS = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s")
QuantizeResult = ConvertResult  # one shape for both verbs


def quantize(
    src: PathLike,
    out: PathLike | None,
    type: str | None = None,
    *,
    fit: str | int | None = None,
    bpw: float | None = None,
    max_kld: float | None = None,
    fit_ram: str | int | None = None,
    ctx: int | None = None,
    imatrix: PathLike | None = None,
    calibration: PathLike | None = None,
    quantizer: str | None = None,
    effort: str | None = None,
    tensor_types: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    threads: int | None = None,
    dry_run: bool = False,
    force: bool = False,
    card: bool = False,
    max_size: str | int | None = None,
    on_progress: Progress | None = None,
) -> QuantizeResult:
    """Write `src` (as for `convert`) as a GGUF of a named mix, such as Q4_K_M.

    `imatrix` is a file of importance data. `calibration` is a UTF-8 text to measure them on, or
    "default" for trit's passages and text that the model writes; they are kept in OUT.imatrix.gguf
    beside `out` and used again as long as nothing they depend on changes. `effort` is "fast" (the
    default: rounding to nearest, which needs no data), "balanced" (error feedback, measured on
    `calibration` or trit's own text) or "best" (then trained layer by layer, which needs torch and
    hours); `quantizer`, "rtn", "gptq" or "learned", forces one. `tensor_types` are
    PATTERN=TYPE, the first that is found in a name decides; `force` lets TQ1_0 and TQ2_0 round
    weights that are not ternary. `card` measures the file against `src` when it is whole,
    and writes the figures into it (evaluate/card.py). `max_size`, as for `convert`, writes shards;
    it goes with neither a card nor a budget.

    In place of a type a budget: `fit`, a size such as "3.2GiB"; `bpw` bits per weight; `max_kld`
    nats per token; `fit_ram` of memory with `ctx` tokens of context. See trit.budget.
    Errors: as for `convert` and, with `calibration`, for calibrate.imatrix; UsageError also for
    unknown types and patterns.
    """
    wishes = recipe.overrides(tensor_types, output_type, embedding_type, pure)
    feedback = efforts.feedback(quantizer, effort, calibration, threads)
    asked = (fit, bpw, max_kld, fit_ram, ctx)
    check_shards(max_size, budget=any(each is not None for each in asked), card=card)
    if any(each is not None for each in asked):
        if type is not None or force:
            raise UsageError("a type (or force) and a budget: name one of them.")
        from trit import budget

        target = budget.target(*asked)
        assert target is not None
        path = zoo.resolve(os.fspath(src), on_progress)
        fitted, _, _ = budget.prepare(
            path, out, target, wishes, imatrix=imatrix, calibration=calibration,
            feedback=feedback, threads=threads, on_progress=on_progress,
        )  # fmt: skip
        return _run(fitted, dry_run or out is None, card, None, threads, on_progress)
    if type is None:
        raise UsageError("no type and no budget: name a mix such as Q4_K_M, or fit='3.2GiB'.")
    recipe.mix(type)  # before anything is pulled
    path = zoo.resolve(os.fspath(src), on_progress)

    def measured(beside: PathLike, text: PathLike) -> importance_files.Imatrix:
        from trit.job import importance  # it brings an engine

        return importance.measured(path, beside, text, threads, on_progress)[0]

    job = prepare_calibrated(
        path, out, type, wishes, imatrix=imatrix, calibration=calibration, measured=measured,
        threads=threads, dry_run=dry_run, force=force, feedback=feedback,
    )  # fmt: skip
    return _run(job, dry_run, card, max_size, threads, on_progress)


def check_shards(max_size: str | int | None, *, budget: bool, card: bool) -> None:
    """UsageError for what is not done as the file is written in shards."""
    if max_size is not None and (budget or card):
        what = "a budget" if budget else "--card"
        raise UsageError(
            f"{what} and --max-size: write one file, then cut it with trit split FILE --max-size."
        )


def _run(
    job: Job,
    dry_run: bool,
    card: bool,
    max_size: str | int | None,
    threads: int | None,
    on_progress: Progress | None,
) -> QuantizeResult:
    with job:
        if max_size is not None:
            job.shard(max_size)
        if card and not dry_run:
            from trit.job import carding  # it brings an engine

            return carding.run(job, threads, on_progress)
        return job.result() if dry_run else job.run(on_progress)


def prepare_calibrated(
    src: PathLike,
    out: PathLike | None,
    type: str,
    wishes: Overrides,
    *,
    imatrix: PathLike | None,
    calibration: PathLike | None,
    measured: Callable[[PathLike, PathLike], importance_files.Imatrix],
    threads: int | None,
    dry_run: bool,
    force: bool,
    feedback: Feedback | None,
) -> Job:
    """As `prepare_quantize`, and with a `calibration`, which no feedback takes, by importance data
    that `measured` gives beside `out` of it; for a dry run they are only planned.
    """

    def prepare(data: PathLike | importance_files.Imatrix | None) -> Job:
        return prepare_quantize(
            src, out, type, wishes, imatrix=data, threads=threads, force=force, feedback=feedback
        )

    if calibration is None or feedback is not None:
        return prepare(imatrix)
    from trit.job import importance  # it brings an engine

    if out is not None:
        refuse_overwrite(Path(out), (importance.text_of(calibration),))
    job = prepare(importance.planned(src, out, calibration, imatrix))
    if dry_run or out is None:
        return job
    job.source.close()  # what is wrong has shown before anything is measured
    return prepare(measured(out, calibration))


def prepare_quantize(
    src: PathLike,
    out: PathLike | None,
    type: str,
    wishes: Overrides,
    *,
    imatrix: PathLike | importance_files.Imatrix | None = None,
    threads: int | None = None,
    force: bool = False,
    feedback: Feedback | None = None,
) -> Job:
    """Open and check everything for `quantize`; the Job tells what it will cost and runs it."""
    mix = recipe.mix(type)
    data = imatrix
    if data is not None and not isinstance(data, importance_files.Imatrix):
        data = importance_files.load(data)
    source = open_source(src)
    try:
        check_whole(source)
        if feedback is not None:
            feedback.check(source)
        weights = weights_of(source)
        choices = recipe.choose(
            mix.name,
            source.metadata,
            weights,
            wishes=wishes,
            importance=data is not None or feedback is not None,
        )
        _check_writable(source, choices)
        values = copied_values(source, mix.file_type)
        if data is not None:
            values |= importance_keys(data)
        values |= {
            "trit.version": trit_version(),
            "trit.recipe": json.dumps(_recipe(mix, wishes, data, feedback), sort_keys=True),
            "trit.source.sha256": "0" * 64,  # of the right length; filled in when the job runs
        }
        warnings = [
            *tokenizer_warnings(source),
            *rounding_warnings(source, choices),
            *(f"{wish} decides nothing in this model" for wish in recipe.unused(wishes, weights)),
            *([] if feedback is None else feedback.remarks(choices)),
            *_mix_warnings(mix, choices, data is not None or feedback is not None),
        ]
        job = Job(
            source,
            out,
            mix.name,
            choices,
            values,
            encoder(threads),
            tuple(warnings),
            importance=data,
            any_values=force,
            threads=threads,
            feedback=feedback,
        )
        job.check_ternary()
        return job
    except BaseException:
        source.close()
        raise


def _check_writable(source: Source, choices: list[Choice]) -> None:
    """UnsupportedError for a format that is only read, unless the tensor has it already."""
    for choice in choices:
        had = source.tensors[choice.name].format.name
        if choice.format not in recipe.WRITABLE and choice.format != had:
            known = ", ".join(sorted(recipe.WRITABLE))
            raise UnsupportedError(
                f"tensor {choice.name!r}: trit reads {choice.format} but does not write it.\n"
                f"Choose one of {known}."
            )


def _recipe(
    mix: Mix,
    wishes: Overrides,
    data: importance_files.Imatrix | None,
    feedback: Feedback | None,
) -> dict[str, object]:
    """The recipe as it is written into the file: what was asked for, without defaults."""
    asked: dict[str, object] = {"mix": mix.name}
    if wishes.tensor_types:
        asked["tensor_types"] = [f"{pattern.pattern}={fmt}" for pattern, fmt in wishes.tensor_types]
    if wishes.output:
        asked["output_type"] = wishes.output
    if wishes.embedding:
        asked["embedding_type"] = wishes.embedding
    if wishes.pure:
        asked["pure"] = True
    if data is not None:
        asked["imatrix_sha256"] = data.sha256
    if feedback is not None:
        asked |= feedback.recipe()
    return asked


def _mix_warnings(mix: Mix, choices: list[Choice], importance: bool) -> list[str]:
    warnings = []
    few = {c.format for c in choices if c.format in FEW_BITS}
    if mix.name == "Q2_K_S" and any(c.format == "q2_k" for c in choices):
        few.add("q2_k")
    if few and not importance:
        names = ", ".join(sorted(name.upper() for name in few))
        warnings.append(
            f"{names} without importance data loses much (llama-quantize refuses it): use --imatrix"
        )
    return warnings
