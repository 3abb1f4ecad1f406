"""Text that the teacher writes, as data: nothing else is needed, and it is what the teacher knows.

Sequences are drawn at temperature 1 by the runtime's scheduler, many at a time. Each begins with
the token that begins a text, or, every second one, with the first words of one of trit's passages;
the draws are keyed by seed, sequence and position. A piece of some sequences is a file of its own,
so a run that was killed writes on from the last whole piece, and what it writes is the same. Its
name tells the job, so what another teacher, seed or context wrote is not taken for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import calibrate
from trit.files import checkpoint
from trit.files._whole import whole
from trit.files.source import core_sha256, trit_version
from trit.runtime import generate
from trit.runtime.generate import Request
from trit.runtime.model import Model
from trit.runtime.sample import SamplerSettings

PIECE = 32  # sequences
TOGETHER = 16  # of them at a time: as the scheduler does it
MIN_P = 0.02  # what is far less likely than the likeliest token is noise, a small model's most
PROVENANCE = (
    f"written by the teacher: temperature 1, min-p {MIN_P}, from the beginning of a text and from "
    "first words of trit's passages"
)

Report = Callable[[str, int, int], None]
Tokens = NDArray[np.uint32]


def write(
    teacher: Path,
    sha256: str,
    folder: Path,
    tokens: int,
    length: int,
    seed: int,
    threads: int,
    report: Report,
) -> list[Tokens]:
    """At least `tokens` tokens in sequences of `length` at most, written or found in `folder`.

    `sha256`: the teacher's.
    """
    facts = [sha256, seed, length, tokens, MIN_P, trit_version(), core_sha256()]
    job = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    found: list[Tokens] = []
    with Model(checkpoint.open(teacher), length, threads, draft_max=0) as model:
        openings = _openings(model, length)
        count = piece = 0
        while count < tokens:
            path = folder / f"sampled-{job}-{piece:05}.bin"
            if not path.exists():
                rows = _piece(model, openings, piece, length, seed, count, tokens, report)
                with whole(path) as file:
                    file.write(np.concatenate(rows).astype("<u4").tobytes())
            found.append(np.fromfile(path, "<u4"))
            count += len(found[-1])
            piece += 1
            report("the teacher writes", min(count, tokens), tokens)
    return found


def clear(folder: Path) -> None:
    """Remove the pieces, once they are packed."""
    for path in folder.glob("sampled-*.bin"):
        path.unlink()


def _openings(model: Model, length: int) -> list[list[int]]:
    parts, _ = calibrate.passages()
    texts = [model.tokenize(each) for each in calibrate.openings(parts)]
    return [each for each in texts if 0 < len(each) < length // 2]


def _piece(
    model: Model,
    openings: list[list[int]],
    piece: int,
    length: int,
    seed: int,
    done: int,
    total: int,
    report: Report,
) -> list[Tokens]:
    """The sequences of a piece, each with the token that ends a text where the teacher ended it."""
    tokenizer = model.tokenizer
    first = next((each for each in (tokenizer.bos_id, tokenizer.eos_id) if each is not None), 0)
    requests = []
    for number in range(piece * PIECE, (piece + 1) * PIECE):
        opening = openings[number // 2 % len(openings)] if number % 2 and openings else [first]
        sampling = SamplerSettings(1.0, top_k=0, top_p=1.0, min_p=MIN_P, seed=seed << 32 | number)
        requests.append(Request(opening, sampling, length - len(opening)))
    rows = [list(request.prompt) for request in requests]
    for chunk in generate.stream(model.scheduler, tokenizer, requests):
        rows[chunk.index] += chunk.tokens
        if chunk.finish_reason == "stop" and tokenizer.eos_id is not None:
            rows[chunk.index].append(tokenizer.eos_id)
        done += len(chunk.tokens)
        report("the teacher writes", min(done, total), total)
    return [np.array(row, "<u4") for row in rows]
