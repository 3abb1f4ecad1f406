"""`trit show`: what a model is, from its keys and its list of tensors; no weight is read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trit.cli._options import Json

if TYPE_CHECKING:
    from trit.files.checkpoint import Checkpoint

# Fields of the answer, in order: the label people read, and the key behind `<architecture>.`.
HYPER_PARAMETERS = {
    "context": ("context", "context_length"),
    "layers": ("layers", "block_count"),
    "embedding": ("embedding", "embedding_length"),
    "feed_forward": ("feed-forward", "feed_forward_length"),
    "heads": ("heads", "attention.head_count"),
    "kv_heads": ("kv heads", "attention.head_count_kv"),
    "experts": ("experts", "expert_count"),
    "experts_used": ("experts used", "expert_used_count"),
    "window": ("window", "attention.sliding_window"),
}
SPECIAL_TOKENS = ("bos", "eos", "eot", "unknown", "padding")


def command(
    model: Annotated[str, typer.Argument(help="Folder, GGUF file or model name.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List the tensors too.")] = False,
    hash_: Annotated[bool, typer.Option("--hash", help="The sha256 of the file too.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw where the bits went, .svg or .png."),
    ] = None,
    json: Json = False,
) -> None:
    """Describe a model: parameters, types, tokenizer, licence, card."""
    from trit.cli._resolve import resolve
    from trit.cli._terminal import note, print_json
    from trit.files import checkpoint

    if picture is not None:
        from trit import pictures

        pictures.check(picture, "--picture")
    path = resolve(model)
    with checkpoint.open(path) as opened:
        answer = describe(opened, with_tensors=tensors)
        if picture is not None:
            from trit.pictures import bits

            bits.draw(opened.tensors.values(), picture, title(answer))
            note(f"written: {picture}")
    if hash_:
        answer["sha256"] = _hash(model, path)
    if json:
        print_json(answer)
    else:
        print(as_text(answer))


def describe(model: "Checkpoint", *, with_tensors: bool) -> dict[str, Any]:
    """Everything `show` says, as JSON would have it; absent facts are None."""
    keys = model.metadata
    arch = _text(keys.get("general.architecture"))
    found = {
        name: _number(keys.get(f"{arch}.{key}")) for name, (_, key) in HYPER_PARAMETERS.items()
    }
    types: dict[str, dict[str, Any]] = {}
    weights = nbytes = 0
    for tensor in model.tensors.values():
        row = types.setdefault(
            tensor.format.name,
            {
                "type": tensor.format.name,
                "tensors": 0,
                "parameters": 0,
                "bytes": 0,
                "bits_per_weight": tensor.format.bits_per_weight,
            },
        )
        count = tensor.rows * tensor.cols
        row["tensors"] += 1
        row["parameters"] += count
        row["bytes"] += tensor.nbytes
        weights, nbytes = weights + count, nbytes + tensor.nbytes
    if model.stored_bytes is not None:
        nbytes = model.stored_bytes
    answer: dict[str, Any] = {
        "path": str(model.path),
        "kind": model.kind,
        "name": _text(keys.get("general.name")),
        "architecture": arch,
        "parameters": weights,
        "tensor_bytes": nbytes,
        "file_bytes": model.path.stat().st_size if model.path.is_file() else None,
        "bits_per_weight": round(8 * nbytes / weights, 4) if weights else None,
        "quantization": _text(keys.get("trit.source.quantization")),
        **found,
        "types": sorted(types.values(), key=lambda row: -row["bytes"]),
        "tokenizer": _tokenizer(keys),
        "template": _text(keys.get("tokenizer.chat_template")),
        "licence": _text(keys.get("general.license")),
        "recipe": _text(keys.get("trit.recipe")),
        "source_sha256": _text(keys.get("trit.source.sha256")),
        "made_by": _text(keys.get("trit.version")),
        "card": _card(keys, list(model.tensors)),
    }
    if with_tensors:
        answer["tensors"] = [
            {
                "name": tensor.name,
                "type": tensor.format.name,
                "shape": list(tensor.shape),
                "bytes": tensor.nbytes,
            }
            for tensor in model.tensors.values()
        ]
    return answer


def title(answer: dict[str, Any]) -> str:
    """Name, bits per weight and size, of `describe`."""
    from trit.cli._terminal import size

    path = Path(answer["path"])
    name = path.stem if path.suffix == ".gguf" else path.name
    return (
        f"{name}: {answer['bits_per_weight']:.2f} bits per weight, {size(answer['tensor_bytes'])}"
    )


def _card(keys: Any, tensors: list[str]) -> dict[str, Any] | None:
    """The quality card, if the file has one."""
    if "trit.card.tokens" not in keys:
        return None
    from trit.evaluate import card  # it brings an engine

    found = card.read(keys, tensors)
    return None if found is None else found.to_dict()


def _tokenizer(keys: Any) -> dict[str, Any]:
    tokens = keys.get("tokenizer.ggml.tokens")
    special = {
        name: _number(keys.get(f"tokenizer.ggml.{name}_token_id")) for name in SPECIAL_TOKENS
    }
    return {
        "model": _text(keys.get("tokenizer.ggml.model")),
        "pre": _text(keys.get("tokenizer.ggml.pre")),
        "tokens": len(tokens) if hasattr(tokens, "__len__") else None,
        **{f"{name}_id": number for name, number in special.items()},
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | list[int] | None:
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


def _hash(name: str, path: Any) -> str:
    """The sha256 of the file; of a folder or shards, of the list `sha256sum` would print."""
    from trit.cli._progress import Progress
    from trit.files.source import source_sha256

    with Progress() as progress:
        return source_sha256(path, lambda done, total: progress(f"hashing {name}", done, total))


def as_text(answer: dict[str, Any]) -> str:
    """The answer for people."""
    from trit.cli._terminal import human, size, table

    bits = answer["bits_per_weight"]
    rows = [
        ("model", answer["name"] or "(no name)"),
        ("path", answer["path"]),
        ("architecture", str(answer["architecture"])),
        ("parameters", f"{answer['parameters']:,} ({human(answer['parameters'])})"),
        ("size", f"{size(answer['tensor_bytes'])}, {bits} bits per weight"),
    ]
    if answer["quantization"] is not None:
        rows.append(("quantized", answer["quantization"]))
    for name, (label, _) in HYPER_PARAMETERS.items():
        if answer[name] is not None:
            rows.append((label, _shown(answer[name])))
    tokenizer = answer["tokenizer"]
    kind = " ".join(str(part) for part in (tokenizer["model"], tokenizer["pre"]) if part)
    rows.append(("tokenizer", f"{kind or 'none'}, {tokenizer['tokens'] or 0:,} tokens"))
    ids = [f"{name} {tokenizer[f'{name}_id']}" for name in SPECIAL_TOKENS]
    rows.append(("special", ", ".join(text for text in ids if not text.endswith("None"))))
    template = answer["template"]
    rows.append(("template", "none" if template is None else f"{len(template):,} characters"))
    rows.append(("licence", answer["licence"] or "not stated"))
    if answer["recipe"]:
        rows.append(("recipe", answer["recipe"]))
        rows.append(("made by", f"trit {answer['made_by']}"))
        rows.append(("from", f"a source of sha256 {str(answer['source_sha256'])[:16]}…"))
    if answer["card"]:
        from trit.cli._card import card_rows

        rows += card_rows(answer["card"])
    if "sha256" in answer:
        rows.append(("sha256", answer["sha256"]))
    parts = [table(rows), "", _types(answer["types"])]
    if "tensors" in answer:
        parts += ["", _tensors(answer["tensors"])]
    return "\n".join(parts)


def _shown(value: int | list[int]) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{min(value):,} to {max(value):,} by layer"


def _types(types: list[dict[str, Any]]) -> str:
    from trit.cli._terminal import human, size, table

    rows = [("TYPE", "TENSORS", "PARAMETERS", "SIZE", "BITS/WEIGHT")]
    for row in types:
        rows.append(
            (
                row["type"].upper(),
                str(row["tensors"]),
                human(row["parameters"]),
                size(row["bytes"]),
                f"{row['bits_per_weight']:g}",
            )
        )
    return table(rows, right=frozenset({1, 2, 3, 4}))


def _tensors(tensors: list[dict[str, Any]]) -> str:
    from trit.cli._terminal import size, table

    rows = [("TENSOR", "TYPE", "SHAPE", "SIZE")]
    for tensor in tensors:
        shape = " × ".join(str(n) for n in tensor["shape"])
        rows.append((tensor["name"], tensor["type"].upper(), shape, size(tensor["bytes"])))
    return table(rows, right=frozenset({3}))
