"""Write a model as GGUF: converted to plain numbers, or quantized to a named mix.

    convert("folder/or/model.gguf", "out.gguf", "f16")
    quantize("model-f16.gguf", "out.gguf", "Q4_K_M", imatrix="imatrix.gguf")

A source is a Hugging Face folder or a GGUF; both are read as named tensors and GGUF keys, and the
keys are copied with their exact types. Tensors go through one at a time, a slab of rows at a time.
An output is whole or absent, replaces an older file only at the very end, and never the source; an
interrupted job goes on where it stopped, with the same bytes at the end.

What `quantize` adds under `trit.*`: `trit.version`, `trit.recipe` (the mix and the overrides, JSON)
and `trit.source.sha256`: of the source file, or, where the source is several files, of the list of
them as `sha256sum` prints it, sorted by name. Reading the source once more for that costs about a
second per gigabyte; in exchange a file can be traced, rebuilt, and resumed safely.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from trit import recipe, zoo
from trit._job import ConvertResult, Job, Progress, TensorResult
from trit._mix_rules import Mix
from trit._source import Source, open_source, trit_version
from trit._transcode import Bytes, Encoder, Floats
from trit.errors import UnsupportedError, UsageError
from trit.files import imatrix as importance_files
from trit.files.checkpoint import QUANTIZATION_KEY
from trit.files.gguf import Plain, Value, ValueType
from trit.recipe import Choice, Overrides, Weight

__all__ = [
    "ConvertResult",
    "Job",
    "QuantizeResult",
    "TensorResult",
    "convert",
    "prepare_convert",
    "prepare_quantize",
    "quantize",
    "source_sha256",
]

FEW_BITS = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s")
QuantizeResult = ConvertResult  # one shape for both verbs
PathLike = str | os.PathLike[str]
Values = dict[str, Plain | Value]

QUANTIZATION_VERSION = 2  # of ggml's block layouts
CONVERSIONS = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}  # type -> general.file_type
AUTO = "auto"  # bf16 for a source of bf16 matrices, else f16
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
OUR_KEYS = ("trit.version", "trit.recipe", "trit.source.sha256")
CARD_PREFIX = "trit.card."  # evaluate/card.py


def convert(
    src: PathLike,
    out: PathLike | None,
    type: str = "f16",
    *,
    threads: int | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> ConvertResult:
    """Write `src` (a Hugging Face folder or a GGUF) as a GGUF of f32, f16, bf16, q8_0 or auto.

    `src` may also be a name of the zoo or hf:org/repo[:QUANT], which is pulled when it is missing.
    A quantized GGUF is expanded. Vectors, norms and routers stay F32, as stock converters do it.
    Errors: UsageError (unknown type, `out` is the source), SourceError (no such model),
    InvalidFileError (source damaged, NaN or Inf), UnsupportedError (architecture; a value beyond
    float16), DoesNotFitError (disk).
    """
    _conversion(type)  # before anything is pulled
    path = zoo.resolve(os.fspath(src), on_progress)
    with prepare_convert(path, out, type, threads=threads) as job:
        return job.result() if dry_run else job.run(on_progress)


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
    tensor_types: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    threads: int | None = None,
    dry_run: bool = False,
    force: bool = False,
    card: bool = False,
    on_progress: Progress | None = None,
) -> QuantizeResult:
    """Write `src` (as for `convert`) as a GGUF of a named mix, such as Q4_K_M.

    `imatrix` is a file of importance data. `calibration` is a UTF-8 text to measure them on, or
    "default" for trit's passages and text that the model writes; they are kept in OUT.imatrix.gguf
    beside `out` and used again as long as nothing they depend on changes. `tensor_types` are
    PATTERN=TYPE, the first that is found in a name decides; `force` lets TQ1_0 and TQ2_0 round
    weights that are not ternary. `card` measures the file against `src` when it is whole,
    and writes the figures into it (evaluate/card.py).

    In place of a type a budget: `fit`, a size such as "3.2GiB"; `bpw` bits per weight; `max_kld`
    nats per token; `fit_ram` of memory with `ctx` tokens of context. See trit.budget.
    Errors: as for `convert` and, with `calibration`, for calibrate.imatrix; UsageError also for
    unknown types and patterns.
    """
    wishes = recipe.overrides(tensor_types, output_type, embedding_type, pure)
    asked = (fit, bpw, max_kld, fit_ram, ctx)
    if any(each is not None for each in asked):
        if type is not None or force:
            raise UsageError("a type (or force) and a budget: name one of them.")
        from trit import budget

        target = budget.target(*asked)
        assert target is not None
        path = zoo.resolve(os.fspath(src), on_progress)
        fitted, _, _ = budget.prepare(
            path, out, target, wishes, imatrix=imatrix, calibration=calibration, threads=threads,
            on_progress=on_progress,
        )  # fmt: skip
        with fitted:
            return fitted.result() if dry_run or out is None else fitted.run(on_progress)
    if type is None:
        raise UsageError("no type and no budget: name a mix such as Q4_K_M, or fit='3.2GiB'.")
    mix_name = recipe.mix(type).name  # before anything is pulled
    path = zoo.resolve(os.fspath(src), on_progress)

    def prepare(data: PathLike | importance_files.Imatrix | None) -> Job:
        return prepare_quantize(
            path, out, mix_name, wishes, imatrix=data, threads=threads, force=force
        )

    if calibration is None:
        job = prepare(imatrix)
    else:
        from trit import _calibration  # it brings an engine

        job = prepare(_calibration.planned(path, out, calibration, imatrix))
        if not dry_run and out is not None:  # what is wrong has shown before anything is measured
            job.source.close()
            job = prepare(_calibration.measured(path, out, calibration, threads, on_progress)[0])
    with job:
        if card and not dry_run:
            from trit import _carding  # it brings an engine

            return _carding.run(job, threads, on_progress)
        return job.result() if dry_run else job.run(on_progress)


def prepare_convert(
    src: PathLike, out: PathLike | None, type: str, *, threads: int | None = None
) -> Job:
    """Open and check everything for `convert`; the Job tells what it will cost and runs it."""
    target = _conversion(type)
    source = open_source(src)
    try:
        if target == AUTO:
            matrices = {t.format.name for t in source.tensors.values() if len(t.shape) > 1}
            target = "bf16" if matrices == {"bf16"} else "f16"
        choices = recipe.expand(target, _weights(source, stored=True))
        values = _values(source, CONVERSIONS[target])
        warnings = tuple(_rounding_warnings(source, choices))
        encode = _encoder(threads)
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


def prepare_quantize(
    src: PathLike,
    out: PathLike | None,
    type: str,
    wishes: Overrides,
    *,
    imatrix: PathLike | importance_files.Imatrix | None = None,
    threads: int | None = None,
    force: bool = False,
) -> Job:
    """Open and check everything for `quantize`; the Job tells what it will cost and runs it."""
    mix = recipe.mix(type)
    data = imatrix
    if data is not None and not isinstance(data, importance_files.Imatrix):
        data = importance_files.load(data)
    source = open_source(src)
    try:
        weights = _weights(source)
        choices = recipe.choose(
            mix.name, source.metadata, weights, wishes=wishes, importance=data is not None
        )
        _check_writable(source, choices)
        values = _values(source, mix.file_type)
        if data is not None:
            values |= _importance_keys(data)
        values |= {
            "trit.version": trit_version(),
            "trit.recipe": json.dumps(_recipe(mix, wishes, data), sort_keys=True),
            "trit.source.sha256": "0" * 64,  # of the right length; filled in when the job runs
        }
        warnings = [
            *_rounding_warnings(source, choices),
            *(f"{wish} decides nothing in this model" for wish in recipe.unused(wishes, weights)),
            *_mix_warnings(mix, choices, data is not None),
        ]
        job = Job(
            source,
            out,
            mix.name,
            choices,
            values,
            _encoder(threads),
            tuple(warnings),
            importance=data,
            any_values=force,
            threads=threads,
        )
        job.check_ternary()
        return job
    except BaseException:
        source.close()
        raise


def _encoder(threads: int | None) -> Encoder:
    """Round onto a packed format; the compiled core is loaded only when it is needed."""

    def encode(weights: Floats, format_name: str, importance: Floats | None) -> Bytes:
        from trit.quantizers import rtn

        return rtn.quantize(weights, format_name, importance=importance, threads=threads)

    return encode


def _weights(source: Source, stored: bool = False) -> list[Weight]:
    """The tensors as recipes see them.

    A folder's vectors may be stored as BF16; a mix that leaves them alone means the F32 that a
    stock converter would have made of them first. `stored` asks for what is really there.
    """
    found = []
    for name, tensor in source.tensors.items():
        weight = Weight(name, tensor.shape, tensor.format.name)
        if source.kind == "hf" and not stored and recipe.is_float32(weight):
            weight = weight._replace(format="f32")
        found.append(weight)
    return found


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


def _values(source: Source, file_type: int) -> Values:
    """The source's keys, exactly, but for those that describe the old file."""
    dropped = {*SPLIT_KEYS, *OUR_KEYS}
    values: Values = {
        key: value
        for key, value in source.values.items()
        if key not in dropped and not key.startswith(CARD_PREFIX)
    }
    values["general.file_type"] = Value(ValueType.UINT32, file_type)
    values["general.quantization_version"] = Value(ValueType.UINT32, QUANTIZATION_VERSION)
    return values


def _importance_keys(data: importance_files.Imatrix) -> Values:
    """What importance data was used, under the keys llama.cpp uses."""
    keys: Values = {"quantize.imatrix.file": data.path.name}
    if data.datasets:
        keys["quantize.imatrix.dataset"] = data.datasets[0]
    keys["quantize.imatrix.entries_count"] = Value(ValueType.UINT32, len(data.entries))
    if data.chunks:
        keys["quantize.imatrix.chunks_count"] = Value(ValueType.UINT32, data.chunks)
    return keys


def _recipe(
    mix: Mix, wishes: Overrides, data: importance_files.Imatrix | None
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
    return asked


def _rounding_warnings(source: Source, choices: list[Choice]) -> list[str]:
    """What a second rounding costs, if the source is quantized already."""
    if source.kind == "hf" and (about := source.metadata.get(QUANTIZATION_KEY)):
        rounded = any(choice.format not in recipe.FLOATS for choice in choices)
        return [
            f"the source is quantized already ({about}): "
            + (
                "rounding it again adds to the first loss. For the best result start from the "
                "F16, BF16 or F32 original"
                if rounded
                else "what that rounding lost does not come back"
            )
        ]
    weights_of: dict[str, int] = {}
    bits = again = 0.0
    for choice in choices:
        tensor = source.tensors[choice.name]
        name = tensor.format.name
        if name in recipe.FLOATS:
            continue
        count = tensor.rows * tensor.cols
        weights_of[name] = weights_of.get(name, 0) + count
        bits += count * tensor.format.bits_per_weight
        if choice.format not in (name, *recipe.FLOATS):
            again += count
    total = sum(weights_of.values())
    if not total:
        return []
    shares = ", ".join(
        f"{name.upper()} {100 * count / total:.0f}%"
        for name, count in sorted(weights_of.items(), key=lambda item: -item[1])
    )
    text = f"the source is quantized already ({shares}; {bits / total:.2f} bits per weight)"
    if again:
        text += (
            f": {100 * again / total:.0f}% of its weights are rounded a second time, which adds to "
            "the first loss. For the best result start from the F16, BF16 or F32 original"
        )
    else:
        text += ": what that rounding lost does not come back"
    return [text]


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


def source_sha256(path: PathLike, on_progress: Callable[[int, int], None] | None = None) -> str:
    """The sha256 that identifies a model: of its file, or of the list of its files."""
    source = open_source(path)
    try:
        return source.sha256(on_progress)
    finally:
        source.close()
