"""A model without its darkest neurons: the same architecture with narrower feed-forwards.

Of each layer as many neurons go, those of the least energy; `feed_forward_length` stays one number,
a multiple of what the stored types need. `_narrow` says what happens to the matrices. A norm before
`ffn_down` loses the same values, and its mean runs over fewer: that is part of the measured
divergence.

    trit.prune.feed_forward_length   neurons of a layer before
    trit.prune.kept                  int32 (layers · neurons kept): which of them stay, in order
    trit.prune.texts                 JSON: name and sha256 of what was measured on
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trit import zoo
from trit.calibrate import plan_for
from trit.errors import UnsupportedError, UsageError
from trit.evaluate import Evaluation, Running, card, evaluate
from trit.evaluate._text import read_text
from trit.evaluate.perplexity import windows
from trit.files.source import Source, open_source, refuse_overwrite
from trit.neurons._measure import Dense, Neurons, OnProgress, dense, neurons
from trit.neurons._narrow import write
from trit.quantizers._grids import WRITTEN
from trit.runtime.tokenizer import Tokenizer

PathLike = str | os.PathLike[str]

MULTIPLE = 32  # of neurons, where the stored type asks for none


@dataclass(frozen=True)
class Pruned:
    """What was written, and what it lost.

    before, after    neurons of a layer
    energy           that went, of each layer's, every token counted alike; the mean of the layers
    rounded          matrices that had to be rounded a second time
    rounding_error   |W' − W| / |W| of those, in the root of the sum of squares
    evaluation       of the new file against the model it was made from
    """

    path: Path
    neurons: Neurons
    before: int
    after: int
    multiple: int
    energy: float
    rounded: int
    rounding_error: float
    bytes_before: int
    bytes: int
    evaluation: Evaluation
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; shares are fractions."""
        return {
            "path": os.fspath(self.path),
            "model": self.neurons.model,
            "neurons_before": self.before,
            "neurons": self.after,
            "multiple": self.multiple,
            "share": 1 - self.after / self.before,
            "energy": self.energy,
            "rounded": self.rounded,
            "rounding_error": self.rounding_error,
            "bytes_before": self.bytes_before,
            "bytes": self.bytes,
            "evaluation": self.evaluation.to_dict(),
            "seconds": round(self.seconds, 3),
        }


def prune(
    model: PathLike,
    out: PathLike,
    share: float,
    text: PathLike | None = None,
    *,
    ctx: int | None = None,
    chunks: int | None = None,
    exact: bool = False,
    multiple: int | None = None,
    eval_text: PathLike | None = None,
    threads: int | None = None,
    measured: Neurons | None = None,
    on_progress: OnProgress | None = None,
    on_window: Callable[[Running], None] | None = None,
) -> Pruned:
    """Write `model` without the darkest `share` of each layer's neurons, and measure what it lost.

    share        0 to 1; what is taken is the nearest that leaves a multiple
    multiple     of neurons that stay; None: the block of `ffn_down`'s type, 32 for plain floats
    eval_text    a text to measure the divergence on, as for `evaluate`; None: the quality card's
    measured     what `neurons` said of this model before: it is not measured again
    on_progress, on_window   as `neurons` and `evaluate` call them
    The other arguments are those of `neurons`. `out` is whole or absent.
    Errors: as for `neurons` and `evaluate`; UsageError (a share that leaves all or nothing, `out`
    is an input or in no folder, another model was measured), UnsupportedError (layers of
    different sizes, a type that is not written), all of these before anything is measured;
    DoesNotFitError (disk), InvalidFileError (a weight that is no number).
    """
    begun = time.perf_counter()
    source = open_source(zoo.resolve(os.fspath(model)))
    try:
        refuse_overwrite(Path(out), (*source.paths, text, eval_text))
        if Path(out).is_dir() or not Path(out).parent.is_dir():
            raise UsageError(f"{out}: expected the name of a file in a folder that is there.")
        plan = plan_for(source, ctx)
        parts = dense(plan, source)
        window = min(card.CTX, plan.context_length)
        read = card.held_out()[0] if eval_text is None else eval_text
        _require_windows(source, read_text(read)[0], window)
        before, step = _size(parts, source), _multiple(parts, source, multiple)
        after = kept_count(before, share, step)
        if measured is None:
            measured = neurons(
                source.path, text, ctx=ctx, chunks=chunks, exact=exact, threads=threads,
                on_progress=on_progress,
            )  # fmt: skip
        if [layer.neurons for layer in measured.layers] != [before] * len(parts):
            raise UsageError(f"measured: {measured.model} has other layers than {source.path}.")
        orders = [layer.darkest() for layer in measured.layers]
        kept = [np.sort(order[before - after :]) for order in orders]
        rounding = write(Path(out), source, parts, kept, measured, threads, on_progress)
        bytes_before = sum(path.stat().st_size for path in source.paths)
    finally:
        source.close()
    gone = [
        layer.even_energy[order[: before - after]].sum()
        for layer, order in zip(measured.layers, orders, strict=True)
    ]
    return Pruned(
        path=Path(out), neurons=measured, before=before, after=after, multiple=step,
        energy=float(np.mean(gone)), rounded=rounding.matrices, rounding_error=rounding.error,
        bytes_before=bytes_before, bytes=Path(out).stat().st_size,
        evaluation=evaluate(out, read, source.path, window, None, threads, on_window),
        seconds=time.perf_counter() - begun,
    )  # fmt: skip


def kept_count(before: int, share: float, multiple: int) -> int:
    """How many neurons of a layer stay: the multiple nearest to what was asked for.

    UsageError for a share outside 0 to 1, and where that leaves all of them or none.
    """
    if not 0 < share < 1:
        raise UsageError(f"--prune {share:g}: expected a share between 0 and 1, such as 0.2.")
    after = round(before * (1 - share) / multiple) * multiple
    most = (before - 1) // multiple * multiple
    if most == 0:
        raise UsageError(
            f"--prune {share:g}: of {before:,} neurons none can go, for as many as stay have to be "
            f"a multiple of {multiple:,}."
        )
    if not 0 < after < before:
        raise UsageError(
            f"--prune {share:g}: of {before:,} neurons {after:,} would stay, for it has to be a "
            f"multiple of {multiple}. Shares from {1 - most / before:.3f} to "
            f"{1 - multiple / before:.3f} can go."
        )
    return after


def _size(parts: list[Dense], source: Source) -> int:
    """Neurons of a layer; UnsupportedError where layers differ."""
    sizes = {part.down.cols for part in parts}
    if len(sizes) > 1:
        raise UnsupportedError(
            f"{source.path}: its layers have {min(sizes):,} to {max(sizes):,} neurons; trit prunes "
            "models whose layers have as many each."
        )
    return sizes.pop()


def _multiple(parts: list[Dense], source: Source, asked: int | None) -> int:
    """The multiple to keep; UsageError for one that blocks do not fit, UnsupportedError for a
    type of `ffn_down` that cannot be written."""
    found = {source.tensors[part.down.weight].format for part in parts}
    for format in found:
        if format.encode is None and format.name not in WRITTEN:
            raise UnsupportedError(
                f"{source.path}: its ffn_down is {format.name}, which trit reads but does not "
                "write. Prune the model it was made from."
            )
    block = max(format.block_weights for format in found)
    if asked is None:
        return block if block > 1 else MULTIPLE
    if asked < 1 or asked % block:
        raise UsageError(f"--multiple {asked}: expected a multiple of {block}, ffn_down's block.")
    return asked


def _require_windows(source: Source, text: str, ctx: int) -> None:
    """The errors of `evaluate` for a text that is too short, before hours are spent."""
    tokenizer = Tokenizer.from_gguf(source.metadata, name=source.path)
    tokens = np.array(tokenizer.encode(text, parse_special=False), np.int32)
    windows(tokens, ctx, tokenizer.bos_id if tokenizer.add_bos else None, None)
