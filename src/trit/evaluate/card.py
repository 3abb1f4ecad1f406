"""A file's quality card: what it lost against its source, measured, and written into it.

    trit.card.text.sha256                   of the text, which comes with trit (card.txt)
    trit.card.ctx, trit.card.tokens         of a window; tokens scored, 0: not measured yet
    trit.card.kld, .ppl, .ppl_source, .same_top, and each with _stderr behind   float64
    trit.card.tensor_errors                 float32 per tensor, in the file's order:
                                            |W' − W| / |W|, in the root of the sum of squares

A file is written with the keys in place, all of fixed length, and measured when it is whole; then
the figures are put where they belong, and no other byte changes. What the file was made from, and
how, stands beside them: trit.recipe, trit.source.sha256, trit.version.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trit import archs
from trit.errors import InvalidFileError
from trit.evaluate import Running, evaluate
from trit.evaluate._estimate import Estimate
from trit.evaluate._text import read_text
from trit.files import checkpoint, gguf
from trit.files._encode import draw
from trit.files.gguf import Plain, Tensor, TensorInfo, Value, ValueType
from trit.machine.processors import default_threads
from trit.runtime.tokenizer import Tokenizer

PathLike = str | os.PathLike[str]
Values = dict[str, Plain | Value]

TEXT = Path(__file__).with_name("card.txt")
PREFIX = "trit.card."
CTX = 512  # or the model's context, if that is less
FIGURES = ("kld", "ppl", "ppl_source", "same_top")
SLAB_WEIGHTS = 1 << 20


@dataclass(frozen=True)
class Card:
    """The figures of a card; probabilities are fractions, KLD is in nats.

    tensors   the relative error of each tensor, by name, in the file's order
    """

    text_sha256: str
    ctx: int
    tokens: int
    kld: Estimate
    ppl: Estimate
    ppl_source: Estimate
    same_top: Estimate
    tensors: Mapping[str, float]

    def values(self) -> Values:
        """As the keys of a file."""
        found: Values = {
            f"{PREFIX}text.sha256": self.text_sha256,
            f"{PREFIX}ctx": Value(ValueType.UINT32, self.ctx),
            f"{PREFIX}tokens": Value(ValueType.UINT32, self.tokens),
        }
        for name in FIGURES:
            figure: Estimate = getattr(self, name)
            found[PREFIX + name] = Value(ValueType.FLOAT64, figure.mean)
            found[f"{PREFIX}{name}_stderr"] = Value(ValueType.FLOAT64, figure.stderr)
        errors = np.array(list(self.tensors.values()), np.float32)
        found[f"{PREFIX}tensor_errors"] = Value(ValueType.FLOAT32, errors)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Flat, as JSON has it."""
        figures = {name: getattr(self, name) for name in FIGURES}
        return {
            "text_sha256": self.text_sha256,
            "ctx": self.ctx,
            "tokens": self.tokens,
            **{name: value.mean for name, value in figures.items()},
            **{f"{name}_stderr": value.stderr for name, value in figures.items()},
            "tensor_errors": dict(self.tensors),
        }


def blank(tensors: Sequence[str]) -> Values:
    """The keys of a card not measured yet, for a file of these tensors."""
    none = Estimate(math.nan, math.nan)
    return Card(
        held_out()[1], 0, 0, none, none, none, none, dict.fromkeys(tensors, math.nan)
    ).values()


def check(source: PathLike) -> None:
    """Errors as for `evaluate` for a model that cannot be measured, before hours are spent."""
    with checkpoint.open(source) as file:
        archs.plan(file, context=CTX)
        Tokenizer.from_gguf(file.metadata, name=file.path)


def measure(
    path: PathLike,
    source: PathLike,
    threads: int | None = None,
    on_window: Callable[[Running], None] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Card:
    """Measure a file against its source: both read the text side by side, then every tensor is
    decoded twice.

    `on_window` as `evaluate` calls it; `on_progress` with ("comparing tensors", weights, of all).
    Errors as for `evaluate`; InvalidFileError if the two have not the same tensors.
    """
    text, sha256 = held_out()
    with checkpoint.open(source) as file:
        ctx = min(CTX, archs.plan(file, context=CTX).context_length)
    found = evaluate(path, text, source, ctx, threads=threads, on_progress=on_window)
    assert found.divergence is not None
    kld = found.divergence.kld
    return Card(
        text_sha256=sha256,
        ctx=ctx,
        tokens=found.tokens,
        kld=Estimate(kld.mean, kld.stderr),
        ppl=found.ppl,
        ppl_source=found.divergence.base,
        same_top=found.divergence.same_top,
        tensors=tensor_errors(path, source, threads, on_progress),
    )


def tensor_errors(
    path: PathLike,
    source: PathLike,
    threads: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, float]:
    """|W' − W| / |W| of each tensor of a file, by name; 0 where both are zero.

    Sums are float64, over slabs in order: no figure depends on the threads. InvalidFileError for a
    tensor that the source has not, or in another shape.
    """
    errors: dict[str, float] = {}
    with (
        gguf.open(path) as ours,
        checkpoint.open(source) as theirs,
        ThreadPoolExecutor(threads or default_threads()) as pool,
    ):
        total = sum(tensor.rows * tensor.cols for tensor in ours.tensors.values())
        done = 0
        for name, tensor in ours.tensors.items():
            base = theirs.tensors.get(name)
            if base is None or base.shape != tensor.shape:
                got = "none" if base is None else f"one of {base.shape}"
                problem = f"expected a tensor of {tensor.shape} in {source}, got {got}"
                raise InvalidFileError(path, f"tensor {name!r}", problem)
            errors[name] = _error(pool, tensor, base)
            done += tensor.rows * tensor.cols
            if on_progress is not None:
                on_progress("comparing tensors", done, total)
    return errors


def _error(pool: ThreadPoolExecutor, ours: Tensor, theirs: Tensor) -> float:
    step = max(1, SLAB_WEIGHTS // ours.cols)
    data = [tensor.data.reshape(tensor.rows, -1) for tensor in (ours, theirs)]

    def sums(first: int) -> tuple[float, float]:
        a = ours.format.decode(data[0][first : first + step])
        b = theirs.format.decode(data[1][first : first + step])
        a -= b
        return float(np.einsum("ij,ij->", a, a, dtype=np.float64)), float(
            np.einsum("ij,ij->", b, b, dtype=np.float64)
        )

    found = list(pool.map(sums, range(0, ours.rows, step)))
    lost, whole = (math.fsum(part) for part in zip(*found, strict=True))
    return math.sqrt(lost / whole) if whole > 0 else (0.0 if lost == 0 else math.inf)


def read(metadata: Mapping[str, object], tensors: Sequence[str]) -> Card | None:
    """The card of a file, of its keys and the names of its tensors; None without one, or blank."""
    tokens, ctx = metadata.get(f"{PREFIX}tokens"), metadata.get(f"{PREFIX}ctx")
    text = metadata.get(f"{PREFIX}text.sha256")
    errors = metadata.get(f"{PREFIX}tensor_errors")
    figures: dict[str, Estimate] = {}
    for name in FIGURES:
        mean, spread = (metadata.get(f"{PREFIX}{name}{end}") for end in ("", "_stderr"))
        if not (isinstance(mean, float) and isinstance(spread, float) and math.isfinite(mean)):
            return None
        figures[name] = Estimate(mean, spread)
    if not (isinstance(tokens, int) and isinstance(ctx, int) and isinstance(text, str)):
        return None
    if tokens == 0 or not isinstance(errors, np.ndarray) or len(errors) != len(tensors):
        return None
    by_name = {name: float(error) for name, error in zip(tensors, errors, strict=True)}
    return Card(text, ctx, tokens, **figures, tensors=by_name)


def write(path: PathLike, card: Card) -> None:
    """Put a card where `blank` left room for it, in one piece; no other byte changes.

    InvalidFileError for a file without the room, or whose header is not as trit writes it.
    """
    with gguf.open(path) as file:
        values: Values = dict(file.values)
        infos = [TensorInfo(t.name, t.shape, t.format) for t in file.tensors.values()]
    old, new = (draw(each, infos).header for each in (values, values | card.values()))
    with Path(path).open("r+b") as out:
        if len(old) != len(new) or out.read(len(old)) != old:
            problem = "expected the room that trit quantize --card leaves, got another header"
            raise InvalidFileError(path, f"keys {PREFIX}*", problem)
        a, b = (np.frombuffer(header, np.uint8) for header in (old, new))
        changed = np.flatnonzero(a != b)
        if len(changed) == 0:
            return
        first, end = int(changed[0]), int(changed[-1]) + 1
        out.seek(first)
        out.write(new[first:end])
        out.flush()
        os.fsync(out.fileno())


def held_out() -> tuple[str, str]:
    """The text, without the head that says where it is from; the sha256 of the whole file."""
    content, about = read_text(TEXT)
    return content.partition("\n%%\n")[2], about.sha256
