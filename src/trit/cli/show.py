"""`trit show`: what a model is, from its keys and its list of tensors; no weight is read."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trit.cli._options import Json

if TYPE_CHECKING:
    from trit.describe import Description

LABELS = {"feed_forward": "feed-forward", "kv_heads": "kv heads", "experts_used": "experts used"}


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
    from trit.describe import describe
    from trit.files import checkpoint

    if picture is not None:
        from trit import pictures

        pictures.check(picture, "--picture")
    path = resolve(model)
    with checkpoint.open(path) as opened:
        found = describe(opened)
        if picture is not None:
            from trit.files.source import refuse_overwrite
            from trit.pictures import bits

            refuse_overwrite(picture, (path,))
            bits.draw(opened.tensors.values(), picture, title(found))
            note(f"written: {picture}")
    sha256 = _hash(model, path) if hash_ else None
    if json:
        print_json(as_json(found, tensors, sha256))
    else:
        print(as_text(found, tensors, sha256))


def as_json(found: "Description", with_tensors: bool, sha256: str | None) -> dict[str, Any]:
    """Flat; a fact that is absent is None, the tensors and the hash are there if asked for."""
    answer: dict[str, Any] = {
        "path": str(found.path),
        "kind": found.kind,
        "name": found.name,
        "architecture": found.architecture,
        "parameters": found.parameters,
        "tensor_bytes": found.tensor_bytes,
        "file_bytes": found.file_bytes,
        "bits_per_weight": found.bits_per_weight,
        "quantization": found.quantization,
        **found.hyper_parameters,
        "types": [asdict(row) for row in found.types],
        "tokenizer": dict(found.tokenizer),
        "template": found.template,
        "licence": found.licence,
        "recipe": found.recipe,
        "source_sha256": found.source_sha256,
        "made_by": found.made_by,
        "card": found.card.to_dict() if found.card else None,
    }
    if with_tensors:
        answer["tensors"] = [asdict(tensor) for tensor in found.tensors]
    if sha256 is not None:
        answer["sha256"] = sha256
    return answer


def title(found: "Description") -> str:
    """Name, bits per weight and size."""
    from trit.cli._terminal import size

    path = Path(found.path)
    name = path.stem if path.suffix == ".gguf" else path.name
    return f"{name}: {found.bits_per_weight or 0:.2f} bits per weight, {size(found.tensor_bytes)}"


def _hash(name: str, path: Any) -> str:
    """The sha256 of the file; of a folder or shards, of the list `sha256sum` would print."""
    from trit.cli._progress import Progress
    from trit.files.source import source_sha256

    with Progress() as progress:
        return source_sha256(path, lambda done, total: progress(f"hashing {name}", done, total))


def as_text(found: "Description", with_tensors: bool, sha256: str | None) -> str:
    """The answer for people."""
    from trit.cli._terminal import human, size, table

    bits = found.bits_per_weight
    rows = [
        ("model", found.name or "(no name)"),
        ("path", str(found.path)),
        ("architecture", str(found.architecture)),
        ("parameters", f"{found.parameters:,} ({human(found.parameters)})"),
        ("size", size(found.tensor_bytes) + (f", {bits} bits per weight" if bits else "")),
    ]
    if found.quantization is not None:
        rows.append(("quantized", found.quantization))
    for name, value in found.hyper_parameters.items():
        if value is not None:
            rows.append((LABELS.get(name, name), _shown(value)))
    rows += _tokenizer(found)
    rows.append(("licence", found.licence or "not stated"))
    if found.recipe:
        rows.append(("recipe", found.recipe))
        rows.append(("made by", f"trit {found.made_by}"))
        rows.append(("from", f"a source of sha256 {str(found.source_sha256)[:16]}…"))
    if found.card:
        from trit.cli.figures.card import card_rows

        rows += card_rows(found.card.to_dict())
    if sha256 is not None:
        rows.append(("sha256", sha256))
    parts = [table(rows), "", _types(found)]
    if with_tensors:
        parts += ["", _tensors(found)]
    return "\n".join(parts)


def _tokenizer(found: "Description") -> list[tuple[str, str]]:
    from trit.describe import SPECIAL_TOKENS

    tokenizer, template = found.tokenizer, found.template
    kind = " ".join(str(part) for part in (tokenizer["model"], tokenizer["pre"]) if part)
    ids = [f"{name} {tokenizer[f'{name}_id']}" for name in SPECIAL_TOKENS]
    return [
        ("tokenizer", f"{kind or 'none'}, {tokenizer['tokens'] or 0:,} tokens"),
        ("special", ", ".join(text for text in ids if not text.endswith("None"))),
        ("template", "none" if template is None else f"{len(template):,} characters"),
    ]


def _shown(value: int | list[int]) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{min(value):,} to {max(value):,} by layer"


def _types(found: "Description") -> str:
    from trit.cli._terminal import human, size, table

    kind = "DECODED TO" if found.decoded else "TYPE"
    rows = [(kind, "TENSORS", "PARAMETERS", "SIZE", "BITS/WEIGHT")]
    for row in found.types:
        rows.append(
            (
                row.type.upper(),
                str(row.tensors),
                human(row.parameters),
                size(row.bytes),
                f"{row.bits_per_weight:g}",
            )
        )
    return table(rows, right=frozenset({1, 2, 3, 4}))


def _tensors(found: "Description") -> str:
    from trit.cli._terminal import size, table

    rows = [("TENSOR", "DECODED TO" if found.decoded else "TYPE", "SHAPE", "SIZE")]
    for tensor in found.tensors:
        shape = " × ".join(str(n) for n in tensor.shape)
        rows.append((tensor.name, tensor.type.upper(), shape, size(tensor.bytes)))
    return table(rows, right=frozenset({3}))
