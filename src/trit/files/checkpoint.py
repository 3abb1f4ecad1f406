"""A model on disk, GGUF or Hugging Face folder: both look the same from here on.

A folder is a *virtual GGUF*: its arch gives the keys, the names and the converters' transforms,
which are applied when a tensor is asked for its bytes. Writing the virtual GGUF to disk is
conversion, and nothing downstream knows where a model came from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trit import archs, formats
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import gguf, quantized, safetensors
from trit.files._hf_experts import Stacks
from trit.files._hf_general import general_keys, size_label
from trit.files._hf_json import Object, read_object
from trit.files._hf_tokenizer import tokenizer_keys
from trit.files._tensor import Tensor
from trit.files._values import Plain, Value, value_of

QUANTIZATION_KEY = "trit.source.quantization"  # how the folder was quantized, in words

_EMBEDDING = "token_embd.weight"
_HEAD = "output.weight"


@dataclass(frozen=True)
class Checkpoint:
    """An open model, under GGUF's keys and names.

    path      what was opened
    kind      where it came from
    metadata  keys and plain values
    values    the same keys with their exact GGUF types, for writing
    tensors   name -> Tensor
    stored_bytes  what the weights take on disk, if that is not what `tensors` take: in a folder
              that is quantized already, which is decoded when asked
    """

    path: Path
    kind: Literal["gguf", "hf"]
    metadata: Mapping[str, Plain]
    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    close: Callable[[], None] = field(repr=False)
    stored_bytes: int | None = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a GGUF file (with its shards) or a folder of config.json and safetensors.

    Raises InvalidFileError for what is missing or broken, UnsupportedError for a model trit cannot
    run.
    """
    path = Path(path)
    if not path.is_dir():
        return _open_gguf(path, path)
    if (path / "config.json").is_file():
        return _open_folder(path)
    found = sorted(path.glob("*.gguf"))
    # Of a model in shards the first stands for all.
    if len(found) == 1 or (found and all("-of-" in file.name for file in found)):
        return _open_gguf(path, found[0])
    problem = f"{len(found)} GGUF files; name one of them." if found else "neither."
    raise InvalidFileError(
        path, "", f"expected config.json with safetensors, or one GGUF file; got {problem}"
    )


def _open_gguf(path: Path, file: Path) -> Checkpoint:
    model = gguf.open(file)
    return Checkpoint(
        path=path,
        kind="gguf",
        metadata=model.metadata,
        values=model.values,
        tensors=model.tensors,
        close=model.close,
    )


def _open_folder(folder: Path) -> Checkpoint:
    config_path = folder / "config.json"
    given = read_object(config_path)
    arch = _arch(config_path, given)
    config = dict(arch.complete(quantized.without_settings(given)))
    keys = arch.metadata_from_hf(config, path=config_path)
    source = _open_weights(folder)
    try:
        weights = quantized.open_weights(source, given, config_path)
        tensors = _extra(arch.extra_tensors(config, path=config_path))
        tied = config.get("tie_word_embeddings") is True
        tensors |= _renamed(folder, arch, weights, keys, tied)
        rows = _embedding_rows(folder, tensors)
        if not tied and _HEAD not in tensors:
            raise InvalidFileError(
                folder,
                "tensor 'lm_head.weight'",
                "missing, and config.json does not say tie_word_embeddings.",
            )
        matrix = next(tensor for tensor in tensors.values() if len(tensor.shape) > 1)
        found = general_keys(folder, config, arch.ARCH, _size_label(tensors), matrix.format.name)
        found |= keys
        found |= tokenizer_keys(folder, config, arch.ARCH, rows)
        if weights.about:
            found[QUANTIZATION_KEY] = weights.about
    except BaseException:
        source.close()
        raise
    values = {key: value_of(value) for key, value in found.items()}
    metadata = {key: value.value for key, value in values.items()}
    stored = weights.nbytes if weights.about else None
    return Checkpoint(folder, "hf", metadata, values, tensors, source.close, stored)


def _size_label(tensors: Mapping[str, Tensor]) -> str:
    """As the converter names sizes: of a mixture, what a row sees of each expert, and how many."""
    count, experts = 0, 0
    for name, tensor in tensors.items():
        stacked = tensor.shape[0] if "_exps." in name else 0
        experts = max(experts, stacked)
        count += math.prod(tensor.shape) // max(1, stacked)
    return size_label(count, experts)


def _open_weights(folder: Path) -> safetensors.SafeTensors:
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        raise UnsupportedError(
            f"{folder}: weights in pickle files (.bin) are not read, for they can hold code. "
            "Save them as safetensors."
        )
    return safetensors.open(folder)


def _arch(path: Path, config: Object) -> archs.Arch:
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        raise InvalidFileError(path, "key 'architectures'", "expected the name of a model class.")
    try:
        return archs.for_hf(classes[0], config)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from None


def _renamed(
    folder: Path,
    arch: archs.Arch,
    source: quantized.Weights,
    keys: Mapping[str, Any],
    tied: bool,
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    stacks = Stacks(folder)
    for hf_name in source.names:
        if place := archs.place(hf_name):
            stacks.add(place, source[hf_name])
            continue
        try:
            name = arch.rename(hf_name)
        except UnsupportedError as error:
            raise UnsupportedError(f"{folder}: {error}") from None
        # A tied head that was saved all the same repeats the embedding.
        if name is None or (tied and name == _HEAD):
            continue
        if name in tensors:
            raise InvalidFileError(folder, f"tensor '{hf_name}'", f"a second one for '{name}'.")
        # Asking for a tensor of a type that is not read raises UnsupportedError.
        tensors[name] = _virtual(folder, arch, name, source[hf_name], keys)
    return tensors | stacks.tensors()


def _virtual(
    folder: Path, arch: archs.Arch, name: str, tensor: Tensor, keys: Mapping[str, Any]
) -> Tensor:
    """A tensor under its GGUF name, transformed when asked.

    Vectors and what routes to experts become F32; matrices stay as they are stored.
    """
    if len(tensor.shape) not in (1, 2):
        raise InvalidFileError(
            folder, f"tensor '{tensor.name}'", f"expected a matrix, got shape {tensor.shape}."
        )
    if len(tensor.shape) == 1 or archs.is_router(name):

        def as_float32() -> NDArray[np.uint8]:
            changed = arch.transform(name, tensor.decode(), keys)
            return np.ascontiguousarray(changed, dtype="<f4").view(np.uint8)

        return Tensor(name, tensor.shape, formats.get("f32"), as_float32)
    return Tensor(
        name, tensor.shape, tensor.format, lambda: arch.transform(name, tensor.data, keys)
    )


def _extra(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    return {
        name: Tensor(
            name, array.shape, formats.get("f32"), np.ascontiguousarray(array).view(np.uint8)
        )
        for name, array in arrays.items()
    }


def _embedding_rows(folder: Path, tensors: Mapping[str, Tensor]) -> int:
    where = "tensor 'model.embed_tokens.weight'"
    if _EMBEDDING not in tensors:
        raise InvalidFileError(folder, where, "missing.")
    shape = tensors[_EMBEDDING].shape
    # Rows of no bytes could be any number: nothing may be made for each of them.
    if len(shape) != 2 or not shape[1]:
        raise InvalidFileError(folder, where, f"expected a matrix, got shape {shape}.")
    return shape[0]
