"""Which files of a Hugging Face repository a reference `hf:org/repo[:QUANT]` means.

QUANT picks the GGUF file whose name contains it (`Q4_K_M` when none is given). A repository without
GGUF files is taken as a folder of safetensors.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from trit.errors import SourceError, UsageError

DEFAULT_QUANT = "Q4_K_M"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# What a checkpoint folder needs beside its weights: configuration, tokenizer, template, licence.
_FOLDER_FILE = re.compile(r".*\.(safetensors|json|model|jinja|txt)|LICENSE.*", re.IGNORECASE)


@dataclass(frozen=True)
class Chosen:
    """Files to have, and whether the model is the first of them (GGUF) or their folder."""

    files: tuple[str, ...]
    folder: bool


def split(reference: str) -> tuple[str, str | None]:
    """`hf:org/repo[:QUANT]` -> (org/repo, QUANT or None); UsageError for anything else."""
    repo, colon, quant = reference.removeprefix("hf:").partition(":")
    if not _REPO.fullmatch(repo) or (colon and not quant):
        raise UsageError(f"{reference}: expected hf:org/repo or hf:org/repo:QUANT.")
    return repo, quant or None


def choose(names: Iterable[str], quant: str | None, reference: str) -> Chosen:
    """The files meant among the repository's; SourceError lists what there is instead."""
    every = sorted(names)
    groups = _gguf_groups(every)
    match = _match(groups, quant or DEFAULT_QUANT)
    if match is None and quant is None and len(groups) == 1:
        match = next(iter(groups))
    if match is not None:
        return Chosen(_whole(groups[match], reference), folder=False)
    weights = _folder_files(every)
    if quant is None and weights:
        return Chosen(weights, folder=True)
    if not groups:
        raise SourceError(f"{reference}: no GGUF or safetensors file in the repository.")
    raise SourceError(
        f"{reference}: no GGUF file has {quant or DEFAULT_QUANT} in its name. "
        f"There are: {', '.join(groups)}. Name one with hf:org/repo:QUANT."
    )


def _gguf_groups(names: list[str]) -> dict[str, list[str]]:
    """GGUF files by name, the shards of one model together; no vision parts, no importance data."""
    groups: dict[str, list[str]] = {}
    for name in names:
        base = name.rpartition("/")[2].lower()
        if base.endswith(".gguf") and not base.startswith(("mmproj", "imatrix")):
            groups.setdefault(_SHARD.sub("", name), []).append(name)
    return groups


def _match(groups: Iterable[str], quant: str) -> str | None:
    """The group named by `quant`: as a whole word before a part of one, the shortest name first."""
    wanted = quant.lower().removesuffix(".gguf")
    named = sorted((name for name in groups if wanted in name.lower()), key=lambda n: (len(n), n))
    word = re.compile(rf"(?<![a-z0-9_]){re.escape(wanted)}(?![a-z0-9_])")
    exact = [name for name in named if word.search(name.lower())]
    return next(iter(exact or named), None)


def _whole(shards: list[str], reference: str) -> tuple[str, ...]:
    match = _SHARD.search(shards[0])
    expected = int(match.group(2)) if match else 1
    if len(shards) != expected:
        raise SourceError(
            f"{reference}: expected {expected} shards like {shards[0]}, got {len(shards)}."
        )
    return tuple(shards)


def _folder_files(names: list[str]) -> tuple[str, ...]:
    """The checkpoint at the repository's top; `consolidated` files hold the same weights again."""
    top = [name for name in names if "/" not in name and _FOLDER_FILE.fullmatch(name)]
    kept = [name for name in top if not name.startswith("consolidated")]
    return tuple(kept) if any(name.endswith(".safetensors") for name in kept) else ()
