"""What a model is, from its keys and its list of tensors; no weight is read.

    with checkpoint.open("model.gguf") as opened:
        describe(opened).bits_per_weight

`trit show` prints it, the server's card shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trit.files.checkpoint import Checkpoint

if TYPE_CHECKING:  # it brings an engine
    from trit.evaluate.card import Card

# What a file calls them behind `<architecture>.`, by what people call them, in their order.
HYPER_PARAMETERS = {
    "context": "context_length",
    "layers": "block_count",
    "embedding": "embedding_length",
    "feed_forward": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "experts": "expert_count",
    "experts_used": "expert_used_count",
    "window": "attention.sliding_window",
}
SPECIAL_TOKENS = ("bos", "eos", "eot", "unknown", "padding")

Count = int | list[int]  # the same in every layer, or one for each


@dataclass(frozen=True)
class Type:
    """All tensors of one type; `parameters` counts their weights."""

    type: str
    tensors: int
    parameters: int
    bytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class DescribedTensor:
    """A tensor; `shape` with the slowest dimension first."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class Description:
    """Everything `show` says; a fact that the model does not state is None.

    tensor_bytes      what the weights take on disk
    file_bytes        of one file; None for a folder
    quantization      how a folder was quantized, in words
    hyper_parameters  by the names of HYPER_PARAMETERS
    types             the one with most bytes first
    tokenizer         its kind, its pre-tokenizer, how many tokens, the ids of special ones
    card              the quality card, if the file has one
    """

    path: Path
    kind: str
    name: str | None
    architecture: str | None
    parameters: int
    tensor_bytes: int
    file_bytes: int | None
    quantization: str | None
    hyper_parameters: Mapping[str, Count | None]
    types: tuple[Type, ...]
    tokenizer: Mapping[str, str | int | None]
    template: str | None
    licence: str | None
    recipe: str | None
    source_sha256: str | None
    made_by: str | None
    card: Card | None
    tensors: tuple[DescribedTensor, ...]

    @property
    def decoded(self) -> bool:
        """Whether types and tensors are what the weights of a quantized folder decode to."""
        return self.kind == "hf" and self.quantization is not None

    @property
    def bits_per_weight(self) -> float | None:
        """Of all weights together; None where there are none."""
        if not self.parameters:
            return None
        return round(8 * self.tensor_bytes / self.parameters, 4)


def describe(model: Checkpoint) -> Description:
    """Read the facts of an open model. What a key says in another type than its own is no fact."""
    keys = model.metadata
    arch = _text(keys.get("general.architecture"))
    tensors = tuple(
        DescribedTensor(t.name, t.format.name, t.shape, t.nbytes, t.format.bits_per_weight)
        for t in model.tensors.values()
    )
    counts = {t.name: t.rows * t.cols for t in model.tensors.values()}
    stored = model.stored_bytes
    return Description(
        path=model.path,
        kind=model.kind,
        name=_text(keys.get("general.name")),
        architecture=arch,
        parameters=sum(counts.values()),
        tensor_bytes=sum(t.bytes for t in tensors) if stored is None else stored,
        file_bytes=model.path.stat().st_size if model.path.is_file() else None,
        quantization=_text(keys.get("trit.source.quantization")),
        hyper_parameters={
            name: _number(keys.get(f"{arch}.{key}")) for name, key in HYPER_PARAMETERS.items()
        },
        types=_types(tensors, counts),
        tokenizer=_tokenizer(keys),
        template=_text(keys.get("tokenizer.chat_template")),
        licence=_text(keys.get("general.license")),
        recipe=_text(keys.get("trit.recipe")),
        source_sha256=_text(keys.get("trit.source.sha256")),
        made_by=_text(keys.get("trit.version")),
        card=_card(keys, list(counts)),
        tensors=tensors,
    )


def _types(tensors: tuple[DescribedTensor, ...], counts: Mapping[str, int]) -> tuple[Type, ...]:
    by_type: dict[str, list[DescribedTensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.type, []).append(tensor)
    rows = [
        Type(
            name,
            len(those),
            sum(counts[tensor.name] for tensor in those),
            sum(tensor.bytes for tensor in those),
            those[0].bits_per_weight,
        )
        for name, those in by_type.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.bytes))


def _card(keys: Mapping[str, Any], tensors: list[str]) -> Card | None:
    if "trit.card.tokens" not in keys:
        return None
    from trit.evaluate import card

    return card.read(keys, tensors)


def _tokenizer(keys: Mapping[str, Any]) -> dict[str, str | int | None]:
    """Ids that are no token's, such as the -1 of a file that means none, are no fact."""
    tokens = keys.get("tokenizer.ggml.tokens")
    count = len(tokens) if isinstance(tokens, Sized) else None
    found: dict[str, str | int | None] = {
        "model": _text(keys.get("tokenizer.ggml.model")),
        "pre": _text(keys.get("tokenizer.ggml.pre")),
        "tokens": count,
    }
    ids = range(count or 0)
    for name in SPECIAL_TOKENS:
        number = _number(keys.get(f"tokenizer.ggml.{name}_token_id"))
        found[f"{name}_id"] = number if isinstance(number, int) and number in ids else None
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> Count | None:
    """A count, or one per layer; whatever else a key holds is not one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str | float | bool) or value is None:
        return None
    try:
        numbers = [int(item) for item in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return numbers[0] if len(set(numbers)) == 1 else numbers
