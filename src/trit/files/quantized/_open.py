"""Which tensors of a folder are parts of quantized linears, and what they are together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from trit.errors import InvalidFileError, UnsupportedError
from trit.files._tensor import Tensor
from trit.files.quantized import awq, bitnet, compressed_tensors, fp8, gptq, hqq
from trit.files.quantized._module import Module, Settings
from trit.files.safetensors import SafeTensors

KEYS = ("quantization_config", "compression_config")


class Method(Protocol):
    """What a module of this folder offers for reading.

    METHODS  its names in `quant_method`
    PARTS    the last words of the names of what it saves beside or instead of a weight
    ANCHORS  those of them that there must be one of, and the types that tell it from a plain one
    ASIDE    of what it saves about activations

    A module may also have `plain(tensor, settings)`: what a tensor stored as floats stands for.
    """

    METHODS: tuple[str, ...]
    PARTS: frozenset[str]
    ANCHORS: Mapping[str, tuple[str, ...]]
    ASIDE: frozenset[str]

    def check(self, settings: Settings) -> str: ...
    def read(self, module: Module, settings: Settings) -> Tensor: ...


_METHODS = [cast(Method, module) for module in (awq, gptq, fp8, compressed_tensors, hqq, bitnet)]


class Weights:
    """The weights of a folder by the names that its model class has for them.

    names   in the order of the files
    about   how they are quantized, in words; "" for a folder that is not
    nbytes  what they take on disk
    """

    def __init__(
        self, names: tuple[str, ...], get: Callable[[str], Tensor], about: str, nbytes: int
    ) -> None:
        self.names = names
        self.about = about
        self.nbytes = nbytes
        self._get = get

    def __getitem__(self, name: str) -> Tensor:
        """The tensor; UnsupportedError for one of a type that trit does not read."""
        return self._get(name)


def settings_of(config: Mapping[str, Any], path: object) -> Settings | None:
    """How config.json says its weights are quantized; None if it does not."""
    holders = [config, config.get("text_config")]
    for holder in holders:
        for key in KEYS:
            given = holder.get(key) if isinstance(holder, Mapping) else None
            if given is None:
                continue
            if not isinstance(given, Mapping):
                raise InvalidFileError(path, f"key '{key}'", "expected an object.")
            return Settings(given, path)
    if config.get("weight_bits") == 1 and "BitnetForCausalLM" in (
        config.get("architectures") or ()
    ):
        # The first published models say it so.
        return Settings({"quant_method": "bitnet", "quantization_mode": "online"}, path)
    return None


def without_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the model as if it had never been quantized."""
    plain = {key: value for key, value in config.items() if key not in KEYS}
    text = plain.get("text_config")
    if isinstance(text, Mapping):
        plain["text_config"] = {key: value for key, value in text.items() if key not in KEYS}
    return plain


def open_weights(source: SafeTensors, config: Mapping[str, Any], path: object) -> Weights:
    """What a folder holds; `path` names config.json in errors.

    InvalidFileError for parts that are missing or do not fit, UnsupportedError for a method or a
    variant that is not read.
    """
    nbytes = sum(tensor.nbytes for tensor in source.tensors.values())
    nbytes += sum(stored.data.nbytes for stored in source.stored.values())
    names = (*source.tensors, *source.stored)
    settings = settings_of(config, path)
    if settings is None:
        return Weights(names, source.__getitem__, "", nbytes)
    method = _method(settings)
    about = method.check(settings)
    plain, modules = _sorted(source, names, method)
    packed = {name: method.read(module, settings) for name, module in modules.items()}
    for name in packed:
        if name in plain:
            raise InvalidFileError(source.path, f"tensor '{name}'", "there, and quantized as well.")

    plainly = getattr(method, "plain", lambda tensor, settings: tensor)

    def get(name: str) -> Tensor:
        return packed[name] if name in packed else plainly(source[name], settings)

    return Weights((*plain, *packed), get, about, nbytes)


def _method(settings: Settings) -> Method:
    name = settings.text("quant_method")
    for method in _METHODS:
        if name in method.METHODS:
            return method
    known = ", ".join(name for method in _METHODS for name in method.METHODS)
    raise UnsupportedError(
        f"{settings.path}: weights quantized by '{name}' are not read; trit reads {known}.\n"
        "Take another quantization of this model, or its original."
    )


def _sorted(
    source: SafeTensors, names: tuple[str, ...], method: Method
) -> tuple[dict[str, None], dict[str, Module]]:
    """The tensors that are what they seem, and the quantized linears by their weight's name."""
    plain: dict[str, None] = {}
    parts: dict[str, set[str]] = {}
    for name in names:
        linear, _, part = name.rpartition(".")
        types = method.ANCHORS.get(part)
        stored = source.stored.get(name)
        if part in method.PARTS or (types and stored is not None and stored.dtype in types):
            parts.setdefault(linear, set()).add(part)
        elif part not in method.ASIDE:
            plain[name] = None
    modules = {}
    for name, found in parts.items():
        module = Module(source, name, frozenset(found))
        if not found & method.ANCHORS.keys():
            there = ", ".join(sorted(found))
            missing = " or ".join(method.ANCHORS)
            raise module.error(missing, f"missing; of this linear there is only {there}.")
        modules[f"{name}.weight"] = module
    return plain, modules
