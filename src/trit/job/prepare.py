"""What convert, quantize and budgets prepare alike: keys, weights, an encoder, warnings."""

from __future__ import annotations

import os

from trit import archs, recipe
from trit.files import imatrix as importance_files
from trit.files._cutting import SPLIT_KEYS
from trit.files.gguf import Plain, Value, ValueType
from trit.files.source import Source
from trit.job.transcode import Bytes, Encoder, Floats
from trit.recipe import Choice, Weight

PathLike = str | os.PathLike[str]
Values = dict[str, Plain | Value]

QUANTIZATION_VERSION = 2  # of ggml's block layouts
OUR_KEYS = ("trit.version", "trit.recipe", "trit.source.sha256")
CARD_PREFIX = "trit.card."  # evaluate/card.py


def check_whole(source: Source) -> None:
    """InvalidFileError for a source without weights, or a folder that lacks some of its own.

    A GGUF is copied as it is, of whatever architecture.
    """
    if source.kind == "hf":
        archs.plan(source)
    else:
        archs.require_weights(source)


def encoder(threads: int | None) -> Encoder:
    """Round onto a packed format; the compiled core is loaded only when it is needed."""

    def encode(weights: Floats, format_name: str, importance: Floats | None) -> Bytes:
        from trit.quantizers import rtn

        return rtn.quantize(weights, format_name, importance=importance, threads=threads)

    return encode


def weights_of(source: Source, stored: bool = False) -> list[Weight]:
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


def copied_values(source: Source, file_type: int) -> Values:
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


def importance_keys(data: importance_files.Imatrix) -> Values:
    """What importance data was used, under the keys llama.cpp uses."""
    keys: Values = {"quantize.imatrix.file": data.path.name}
    if data.datasets:
        keys["quantize.imatrix.dataset"] = data.datasets[0]
    keys["quantize.imatrix.entries_count"] = Value(ValueType.UINT32, len(data.entries))
    if data.chunks:
        keys["quantize.imatrix.chunks_count"] = Value(ValueType.UINT32, data.chunks)
    return keys


def tokenizer_warnings(source: Source) -> list[str]:
    """That a folder has no tokenizer, if so."""
    if source.kind != "hf" or "tokenizer.ggml.model" in source.metadata:
        return []
    return [
        "the source has neither tokenizer.json nor tokenizer.model: the file cannot be run. "
        "Copy them from where the weights come from"
    ]


def rounding_warnings(source: Source, choices: list[Choice]) -> list[str]:
    """What a second rounding costs, if the source is quantized already."""
    if about := source.decoded_from:
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
    counts: dict[str, int] = {}
    bits = again = 0.0
    for choice in choices:
        tensor = source.tensors[choice.name]
        name = tensor.format.name
        if name in recipe.FLOATS:
            continue
        count = tensor.rows * tensor.cols
        counts[name] = counts.get(name, 0) + count
        bits += count * tensor.format.bits_per_weight
        if choice.format not in (name, *recipe.FLOATS):
            again += count
    total = sum(counts.values())
    if not total:
        return []
    shares = ", ".join(
        f"{name.upper()} {100 * count / total:.0f}%"
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
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
