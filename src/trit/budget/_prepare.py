"""A quantization to a budget, ready to run: measured, solved, and turned into a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trit import formats, recipe
from trit.budget import _sensitivity
from trit.budget._allocation import (
    FILE_TYPES,
    Allocation,
    Sizes,
    allocate,
    choices,
    commonest,
    limit_of,
    recipe_text,
)
from trit.budget._menu import menu
from trit.budget._target import Target
from trit.budget._target import target as read_target
from trit.calibrate import OnProgress
from trit.errors import InvalidFileError, UnsupportedError, UsageError
from trit.files import imatrix as importance_files
from trit.files.gguf import Plain, Value
from trit.files.imatrix import Imatrix
from trit.files.source import Source, open_source, refuse_overwrite, trit_version
from trit.job import Job, importance
from trit.job.feedback import Feedback
from trit.job.prepare import (
    check_whole,
    copied_values,
    encoder,
    importance_keys,
    rounding_warnings,
    tokenizer_warnings,
    weights_of,
)
from trit.recipe import Overrides, Weight

PathLike = str | os.PathLike[str]


class Prepared(NamedTuple):
    """The job, and why it is as it is; `kept` is the file of sensitivities."""

    job: Job
    allocation: Allocation
    kept: Path


def prepare(
    src: PathLike,
    out: PathLike | None,
    target: Target,
    wishes: Overrides,
    *,
    imatrix: PathLike | None = None,
    calibration: PathLike | None = None,
    feedback: Feedback | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    said: Callable[[str], None] | None = None,
) -> Prepared:
    """Measure what is not known yet, choose the formats, open and check everything.

    out          None: nothing will be written; what is measured is kept in the current folder
    wishes       formats by hand: those tensors have no choice
    imatrix      a file of importance data; None: measured on the text
    calibration  a UTF-8 text to measure on; None or "default": trit's own
    feedback     how the chosen formats are rounded; None: to nearest, with the importance data
    said         told in words what is measured or found
    Errors: UsageError for a budget that cannot be met, with the sizes that can, before anything is
    measured; else those of `calibrate.imatrix`, `Job` and of the engine.
    """
    if wishes.pure:
        raise UsageError("--pure: one type for all matrices leaves no choice for a budget.")
    text = importance.text_of(calibration or importance.DEFAULT)
    say = said or (lambda words: None)
    source = open_source(src)
    try:
        if out is not None:
            given_data = None if imatrix is None else Path(imatrix)
            refuse_overwrite(Path(out), (*source.paths, text, given_data))
        check_whole(source)
        if feedback is not None:
            feedback.check(source)
        folder = Path() if out is None else Path(out).parent
        base = folder / _sensitivity.stem(source.path)
        given = importance.DEFAULT if text is None else text
        data = _known(source, folder, imatrix, text)
        # What is to be measured is in the header too, so sizes are exact before it is.
        there = data or importance.planned(src, base, given, None)
        sizes, kept = _sizes(source, wishes, target, there, feedback)
        limit = None if target.kind == "max_kld" else limit_of(target, sizes, source)
        if data is None:
            data, made = importance.measured(src, base, given, threads, on_progress, said)
            say(f"importance data {'found' if made is None else 'measured, kept'} in {data.path}")
            sizes, kept = _sizes(source, wishes, target, data, feedback)
        place = _sensitivity.place(source, folder)
        known = _sensitivity.measured(source, place, text, data, threads, on_progress)
        allocation = allocate(target, sizes, known, limit)
        job = _job(source, out, target, allocation.formats, kept, wishes, data, feedback, threads)
        return Prepared(job, allocation, place)
    except BaseException:
        source.close()
        raise


def again(
    src: PathLike,
    asked: Mapping[str, Any],
    *,
    imatrix: Imatrix | None = None,
    feedback: Feedback | None = None,
    threads: int | None = None,
) -> Job:
    """The job of a file that was made to a budget, from its recipe; it has no output.

    asked    the recipe: `budget`, what was asked for, and `types`, the tensors of each format
    InvalidFileError for a recipe that does not fit the source.
    """
    made = {str(name): str(format) for format, names in asked["types"].items() for name in names}
    goal = read_target(**asked["budget"])
    source = open_source(src)
    try:
        unknown = sorted(set(made) - set(source.tensors)) or sorted(
            set(made.values()) - set(formats.all())
        )
        if goal is None or unknown:
            problem = f"the source has no {unknown[0]!r}" if unknown else "it names no budget"
            raise InvalidFileError(source.path, "key 'trit.recipe'", problem)
        kept = {item.name: item.format for item in weights_of(source) if item.name not in made}
        return _job(source, None, goal, made, kept, Overrides(), imatrix, feedback, threads)
    except BaseException:
        source.close()
        raise


def _known(
    source: Source, folder: Path, imatrix: PathLike | None, text: Path | None
) -> Imatrix | None:
    """The importance data, if there is nothing to measure for them."""
    if imatrix is not None:
        return importance_files.load(imatrix)
    path = importance.place(folder / _sensitivity.stem(source.path))
    return importance_files.load(path) if importance.is_there(source.path, path, text) else None


def _sizes(
    source: Source,
    wishes: Overrides,
    target: Target,
    data: Imatrix | None,
    feedback: Feedback | None,
) -> tuple[Sizes, dict[str, str]]:
    """What can be chosen, and the tensors that keep what they have."""
    weights = weights_of(source)
    free = {item.name for item in weights if recipe.is_quantizable(item)}
    kept = {item.name: item.format for item in weights if item.name not in free}
    wished = _wished(source, weights, wishes)
    menus = {
        name: [wished[name]] if name in wished else menu(source.tensors[name].cols)
        for name in source.tensors
        if name in free
    }
    if not menus:
        raise UnsupportedError(f"{source.path}: there is no matrix that could be rounded.")
    for name, format in wished.items():
        had = source.tensors[name].format.name
        if format not in FILE_TYPES and format not in ("f32", "bf16", had):
            raise UnsupportedError(f"tensor {name!r}: {format} is not for a budget to choose.")

    def values(made: Mapping[str, str]) -> dict[str, Plain | Value]:
        return _values(source, made, target, wishes, data, feedback)

    return Sizes(source, kept, menus, values), kept


def _wished(source: Source, weights: list[Weight], wishes: Overrides) -> dict[str, str]:
    """The formats that the user gave by hand, by tensor, as they decide in a named mix."""
    tied = all(item.name != "output.weight" for item in weights)
    found = {}
    for item in weights:
        if not recipe.is_quantizable(item):
            continue
        by_name = (fmt for pattern, fmt in wishes.tensor_types if pattern.search(item.name))
        wish = next(by_name, None)
        if item.name == "output.weight":
            wish = wishes.output or wish
        elif item.name == "token_embd.weight":
            wish = wishes.embedding or wish or (wishes.output if tied else None)
        if wish is not None:
            found[item.name] = recipe.fit(item, wish).format
    return found


def _values(
    source: Source,
    made: Mapping[str, str],
    target: Target,
    wishes: Overrides,
    data: Imatrix | None,
    feedback: Feedback | None,
) -> dict[str, Plain | Value]:
    """The keys of the file."""
    values = copied_values(source, FILE_TYPES.get(commonest(source, made), 1))
    extra: dict[str, object] = {}
    if data is not None:
        values |= importance_keys(data)
        extra["imatrix_sha256"] = data.sha256
    if feedback is not None:
        extra |= feedback.recipe()
    return values | {
        "trit.version": trit_version(),
        "trit.recipe": recipe_text(target, made, extra),
        "trit.source.sha256": "0" * 64,  # of the right length; filled in when the job runs
    }


def _job(
    source: Source,
    out: PathLike | None,
    target: Target,
    made: Mapping[str, str],
    kept: Mapping[str, str],
    wishes: Overrides,
    data: Imatrix | None,
    feedback: Feedback | None,
    threads: int | None,
) -> Job:
    picked = choices(source, kept, made)
    items = weights_of(source)
    warnings = [
        *tokenizer_warnings(source),
        *rounding_warnings(source, picked),
        *(f"{wish} decides nothing in this model" for wish in recipe.unused(wishes, items)),
    ]
    return Job(
        source,
        out,
        f"mixed, mostly {commonest(source, made).upper()}",
        picked,
        _values(source, made, target, wishes, data, feedback),
        encoder(threads),
        tuple(warnings),
        importance=data,
        threads=threads,
        feedback=feedback,
    )
