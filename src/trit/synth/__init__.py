"""A GGUF of random weights in the shape of a known model, written in seconds.

    synth("llama-3-8b", "8b.gguf", "Q4_K_M")

Speed depends on sizes and types, never on values: such a file measures an engine at real sizes
where the real weights are not at hand. Its answers mean nothing, and it says so: in `general.name`
and under `trit.synth.*`, which makes `trit run` warn. Stock readers load it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from trit import archs, formats, recipe
from trit.errors import UsageError
from trit.files import gguf
from trit.files.gguf import Plain, TensorInfo, Value, ValueType
from trit.files.source import trit_version
from trit.job import ConvertResult, TensorResult
from trit.recipe import Choice, Overrides, Weight
from trit.synth import _filler_vocabulary, _random_weights
from trit.synth._random_weights import Bytes, Floats
from trit.synth.shapes import SHAPES, Shape, find

__all__ = ["SHAPES", "SHAPE_KEY", "Shape", "find", "synth"]

SHAPE_KEY = "trit.synth.shape"  # its presence says that the weights are random
QUANTIZATION_VERSION = 2
MAX_SEED = 2**32 - 1
Progress = Callable[[str, int, int], None]


def synth(
    shape: str | Shape,
    out: str | os.PathLike[str],
    type: str = "Q4_K_M",
    *,
    pure: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> ConvertResult:
    """Write random weights of `shape` (a name of SHAPES, or a Shape) to `out`.

    `type` is a mix such as Q4_K_M, which gives each tensor the type that llama.cpp's mix gives it,
    or a single format such as iq2_xxs. `pure`: one format for all matrices; where a mix and a
    format share a name (the mix IQ2_S is mostly iq2_xs), the format. The same arguments give the
    same bytes. Vectors are F32. The result's `source` of a tensor is "random".
    Errors: UsageError (shape, type, seed), UnsupportedError (a format without random blocks),
    DoesNotFitError (disk; before anything is written).
    """
    sizes = find(shape) if isinstance(shape, str) else shape
    sizes.check()
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed {seed}: expected 0 to {MAX_SEED}.")
    begun = time.perf_counter()
    keys, extra = sizes.keys()
    shapes = sizes.tensors() | {name: array.shape for name, array in extra.items()}
    keys |= {"general.architecture": sizes.arch}
    archs.for_gguf(sizes.arch).plan(keys, shapes, extra.__getitem__, path=sizes.name)
    choices, file_type = _choices(type, pure, keys, shapes)
    infos = [TensorInfo(c.name, shapes[c.name], formats.get(c.format)) for c in choices]
    values = _values(sizes, type, seed, keys, file_type)
    report = on_progress or (lambda what, done, total: None)
    writer = gguf.Writer(
        out, values, infos, on_progress=lambda done, total: report("writing", done, total)
    )
    with writer:
        for info in infos:
            writer.add(info.name, _bytes(info, extra, seed))
        writer.finish()
    return _result(Path(out), type.upper(), choices, infos, time.perf_counter() - begun)


def _choices(
    type: str, pure: bool, keys: dict[str, object], shapes: dict[str, tuple[int, ...]]
) -> tuple[list[Choice], int | None]:
    """The format of every tensor, and the file type where the type is a mix."""
    weights = [
        Weight(name, shape, "f32" if len(shape) == 1 else "f16") for name, shape in shapes.items()
    ]
    one = type.lower()
    if recipe.is_mix(type) and not (pure and one in formats.all()):
        wishes = Overrides(pure=pure)
        if pure:  # the head too, which a mix would give more bits
            base = recipe.mix(type).base
            wishes = replace(wishes, output=base, embedding=base)
        return recipe.choose(type, keys, weights, wishes=wishes), recipe.mix(type).file_type
    if one not in formats.all():
        known = ", ".join(name.upper() for name in formats.all())
        raise UsageError(f"unknown type '{type}'; expected a mix such as Q4_K_M, or {known}.")
    wishes = Overrides(((re.compile(""), one),), output=one, embedding=one)
    return recipe.choose("Q8_0", keys, weights, wishes=wishes), None  # every matrix is overridden


def _values(
    sizes: Shape, type: str, seed: int, keys: dict[str, Plain], file_type: int | None
) -> dict[str, Plain | Value]:
    """All keys of the file; what it is comes first."""
    note = f"; {sizes.note}" if sizes.note else ""
    values: dict[str, Plain | Value] = {
        "general.architecture": sizes.arch,
        "general.type": "model",
        "general.name": f"{sizes.name} shape, random weights",
        "general.description": f"Random weights, for measuring speed only{note}.",
        "general.quantization_version": Value(ValueType.UINT32, QUANTIZATION_VERSION),
        "trit.version": trit_version(),
        SHAPE_KEY: sizes.name,
        "trit.synth.type": type.upper(),
        "trit.synth.seed": Value(ValueType.UINT32, seed),
    }
    if file_type is not None:
        values["general.file_type"] = Value(ValueType.UINT32, file_type)
    return values | keys | _filler_vocabulary.keys(sizes.vocab)


def _bytes(info: TensorInfo, extra: dict[str, Floats], seed: int) -> Bytes | Iterable[Bytes]:
    if info.name in extra:
        assert info.format.encode is not None, f"{info.name}: rope's divisors are floats"
        return info.format.encode(extra[info.name])
    if len(info.shape) == 1:
        return _random_weights.vector(info, seed)
    return _random_weights.matrix(info, seed)


def _result(
    out: Path, type: str, choices: list[Choice], infos: list[TensorInfo], seconds: float
) -> ConvertResult:
    tensors = tuple(
        TensorResult(
            info.name, info.shape, "random", info.format.name, choice.fallback_from, info.nbytes
        )
        for choice, info in zip(choices, infos, strict=True)
    )
    return ConvertResult(
        path=out,
        type=type,
        tensors=tensors,
        weights=sum(info.rows * info.cols for info in infos),
        source_bytes=0,
        tensor_bytes=sum(info.nbytes for info in infos),
        bytes=out.stat().st_size,
        warnings=(),
        seconds=seconds,
    )
