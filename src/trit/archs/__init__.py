"""Architectures: one file per family, found by scanning this folder.

Each file has the same shape: `ARCH` (the GGUF name), `HF_CLASSES`, and the functions of `Arch`.
An arch turns names and hyper-parameters into a plan; it never touches a file and never computes.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from trit.archs._experts import Place, place
from trit.errors import InvalidFileError, UnsupportedError
from trit.plan import (
    Attention,
    GatedFeedForward,
    Layer,
    Linear,
    MixtureOfExperts,
    Norm,
    PlainFeedForward,
    Plan,
)

Floats = npt.NDArray[np.float32]

_VECTOR_FORMATS = ("f32", "f16", "bf16")


__all__ = ["Arch", "Checkpoint", "Place", "all", "for_gguf", "for_hf", "place"]


class Arch(Protocol):
    """What every module of this folder offers (a module satisfies this protocol)."""

    ARCH: str
    HF_CLASSES: tuple[str, ...]

    def complete(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """`config` with the values its class fills in."""

    def metadata_from_hf(
        self, config: Mapping[str, Any], path: object = "config.json"
    ) -> dict[str, Any]:
        """GGUF keys of a completed config."""

    def extra_tensors(
        self, config: Mapping[str, Any], path: object = "config.json"
    ) -> dict[str, Floats]:
        """Tensors that a GGUF has and an HF folder has not, by GGUF name."""

    def rename(self, hf_name: str) -> str | None:
        """The GGUF name of an HF tensor, None for one that is left out."""

    def transform(
        self, gguf_name: str, array: npt.NDArray[Any], metadata: Mapping[str, Any]
    ) -> npt.NDArray[Any]:
        """The array as a GGUF stores it; the first axis is the row, 1-D arrays are float32."""

    def plan(
        self,
        metadata: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Floats],
        *,
        path: object = "model",
        context: int | None = None,
    ) -> Plan:
        """The plan, with every check of the model's sizes, names and shapes."""


class _Format(Protocol):
    @property
    def name(self) -> str: ...


class _Tensor(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> _Format: ...
    def decode(self) -> Floats: ...


class Checkpoint(Protocol):
    """What `plan` needs of a model on disk: GGUF keys, GGUF names."""

    @property
    def path(self) -> object: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def tensors(self) -> Mapping[str, Any]: ...


@cache
def all() -> dict[str, Arch]:
    """Every architecture of this folder by its GGUF name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.ARCH: cast(Arch, module) for module in modules}


def for_gguf(arch: str) -> Arch:
    """The architecture a GGUF names. Raises UnsupportedError with the list of those there are."""
    try:
        return all()[arch]
    except KeyError:
        raise UnsupportedError(
            f"architecture {arch!r} is not supported; trit knows {', '.join(all())}."
        ) from None


def for_hf(class_name: str, config: Mapping[str, Any] | None = None) -> Arch:
    """The architecture of an HF class; one whose models are of two kinds looks at `config`.

    Raises UnsupportedError with the list of those there are.
    """
    for arch in all().values():
        if class_name in arch.HF_CLASSES:
            other = getattr(arch, "instead", lambda config: None)(config or {})
            return arch if other is None else for_gguf(other)
    known = ", ".join(name for arch in all().values() for name in arch.HF_CLASSES)
    raise UnsupportedError(f"model class {class_name!r} is not supported; trit knows {known}.")


def plan(checkpoint: Checkpoint, context: int | None = None) -> Plan:
    """The plan of a model on disk.

    `context` is the number of positions to be used, None for all the model has. Only LongRoPE
    (phi3) needs it: a plan with its short factors says so in a smaller `context_length`.
    Raises InvalidFileError, UnsupportedError.
    """
    require_weights(checkpoint)
    metadata, tensors, path = checkpoint.metadata, checkpoint.tensors, checkpoint.path
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str):
        raise InvalidFileError(
            path, "key 'general.architecture'", f"expected a string, got {arch!r}."
        )
    try:
        module = for_gguf(arch)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def read(name: str) -> Floats:
        _check_vector(path, name, tensors[name])
        return np.asarray(tensors[name].decode(), dtype=np.float32)

    made = module.plan(metadata, shapes, read, path=path, context=context)
    for name in vectors(made):
        _check_vector(path, name, tensors[name])
    return made


def require_weights(checkpoint: Checkpoint) -> None:
    """InvalidFileError for a file without tensors."""
    if not checkpoint.tensors:
        problem = "expected weights, got none: this file has only a vocabulary."
        raise InvalidFileError(checkpoint.path, "tensors", problem)


def is_router(gguf_name: str) -> bool:
    """Whether a matrix decides which experts see a row: the converters keep those in F32."""
    return "ffn_gate_inp" in gguf_name


def parameter_count(checkpoint: Checkpoint) -> int:
    """Weights of a model; a tied head counts once, rope's divisors not at all."""
    return sum(
        math.prod(tensor.shape)
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith("rope_")
    )


def linears(layer: Layer) -> dict[str, Linear]:
    """The linear parts of a layer by role (q, k, v, output, gate, up, down), in running order.

    Of a mixture of experts those that every row passes: the router and the shared expert.
    """
    mixer, feed_forward = layer.mixer, layer.feed_forward
    parts = {"q": mixer.q, "k": mixer.k, "v": mixer.v, "output": mixer.output}
    if isinstance(feed_forward, MixtureOfExperts):
        parts["router"] = feed_forward.router
        if feed_forward.shared is None:
            return parts
        if feed_forward.shared.gate is not None:
            parts["shared_gate"] = feed_forward.shared.gate
        feed_forward = feed_forward.shared.part
    if isinstance(feed_forward, GatedFeedForward):
        parts["gate"] = feed_forward.gate
    if isinstance(feed_forward, GatedFeedForward | PlainFeedForward):
        parts |= {"up": feed_forward.up, "down": feed_forward.down}
    return parts


def vectors(plan: Plan) -> Iterator[str]:
    """Names of the plan's 1-D tensors: norms, biases, sinks."""
    yield plan.output_norm.weight
    if plan.head.bias is not None:
        yield plan.head.bias
    for layer in plan.layers:
        yield from (linear.bias for linear in linears(layer).values() if linear.bias is not None)
        yield from (norm.weight for norm in _norms(layer))
        if layer.mixer.sinks is not None:
            yield layer.mixer.sinks


def _norms(layer: Layer) -> Iterator[Norm]:
    mixer: Attention = layer.mixer
    candidates = [
        layer.mixer_norm,
        layer.mixer_post_norm,
        layer.feed_forward_norm,
        layer.feed_forward_post_norm,
        mixer.q_norm,
        mixer.k_norm,
        mixer.sub_norm,
        getattr(layer.feed_forward, "sub_norm", None),
    ]
    yield from (norm for norm in candidates if norm is not None)


def _check_vector(path: object, name: str, tensor: _Tensor) -> None:
    if tensor.format.name not in _VECTOR_FORMATS:
        raise InvalidFileError(
            path,
            f"tensor '{name}'",
            f"expected one of {', '.join(_VECTOR_FORMATS)}, got {tensor.format.name}.",
        )
