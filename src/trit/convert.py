"""Write a model as GGUF of plain numbers.

    convert("folder/or/model.gguf", "out.gguf", "f16")

A source is a Hugging Face folder or a GGUF; both are read as named tensors and GGUF keys, and the
keys are copied with their exact types. Tensors go through one at a time, a slab of rows at a time.
An output is whole or absent, replaces an older file only at the very end, and never the source; an
interrupted job goes on where it stopped, with the same bytes at the end.
"""

from __future__ import annotations

import os

from trit import recipe, zoo
from trit.errors import UsageError
from trit.files.source import open_source
from trit.job import ConvertResult, Job, Progress, TensorResult
from trit.job.prepare import (
    PathLike,
    check_whole,
    copied_values,
    encoder,
    rounding_warnings,
    tokenizer_warnings,
    weights_of,
)

__all__ = ["ConvertResult", "Job", "TensorResult", "convert", "prepare_convert"]

CONVERSIONS = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}  # type -> general.file_type
AUTO = "auto"  # bf16 for a source of bf16 matrices, else f16


def convert(
    src: PathLike,
    out: PathLike | None,
    type: str = "f16",
    *,
    threads: int | None = None,
    max_size: str | int | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> ConvertResult:
    """Write `src` (a Hugging Face folder or a GGUF) as a GGUF of f32, f16, bf16, q8_0 or auto.

    `src` may also be a name of the zoo or hf:org/repo[:QUANT], which is pulled when it is missing.
    A quantized GGUF is expanded. `max_size`, such as "4GB", writes shards instead of one file:
    OUT-00001-of-0000N.gguf and so on, as `shards.split` would cut it. Vectors, norms and routers
    stay F32, as stock converters do it.
    Errors: UsageError (unknown type, `out` is the source, a shard is there), SourceError (no such
    model), InvalidFileError (source damaged or not whole, NaN or Inf), UnsupportedError
    (architecture; a value beyond float16), DoesNotFitError (disk).
    """
    _conversion(type)  # before anything is pulled
    path = zoo.resolve(os.fspath(src), on_progress)
    with prepare_convert(path, out, type, threads=threads) as job:
        if max_size is not None:
            job.shard(max_size)
        return job.result() if dry_run else job.run(on_progress)


def prepare_convert(
    src: PathLike, out: PathLike | None, type: str, *, threads: int | None = None
) -> Job:
    """Open and check everything for `convert`; the Job tells what it will cost and runs it."""
    target = _conversion(type)
    source = open_source(src)
    try:
        check_whole(source)
        if target == AUTO:
            matrices = {t.format.name for t in source.tensors.values() if len(t.shape) > 1}
            target = "bf16" if matrices == {"bf16"} else "f16"
        choices = recipe.expand(target, weights_of(source, stored=True))
        values = copied_values(source, CONVERSIONS[target])
        warnings = (*tokenizer_warnings(source), *rounding_warnings(source, choices))
        encode = encoder(threads)
        return Job(source, out, target.upper(), choices, values, encode, warnings, threads=threads)
    except BaseException:
        source.close()
        raise


def _conversion(type: str) -> str:
    """The type in lower case; UsageError for one that `convert` does not write."""
    target = type.lower()
    if target not in (*CONVERSIONS, AUTO):
        known = ", ".join((*CONVERSIONS, AUTO))
        hint = f" 'trit quantize' writes {type.upper()}." if recipe.is_mix(type) else ""
        raise UsageError(f"cannot convert to '{type}': expected one of {known}.{hint}")
    return target
