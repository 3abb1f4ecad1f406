"""A file with some neurons of each layer, made from one with all of them.

Rows of `ffn_gate` and `ffn_up` are whole in every type, so the bytes of those that stay are copied.
Columns of `ffn_down` lie inside blocks: the matrix is decoded, and what stays is encoded in its
type again, exactly for plain floats, rounded a second time for all others; columns weigh by how
strongly their neurons fire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from trit.files._cutting import SPLIT_KEYS
from trit.files._tensor import Bytes
from trit.files.gguf import Plain, Tensor, TensorInfo, Value, ValueType, Writer
from trit.files.source import Source, trit_version
from trit.job.prepare import CARD_PREFIX, OUR_KEYS
from trit.neurons._measure import SLAB_WEIGHTS, Dense, Neurons, OnProgress
from trit.neurons._tally import Floats, Longs
from trit.plan import GatedFeedForward
from trit.quantizers import rtn

LENGTH_KEY = "feed_forward_length"


class Rounding:
    """What rounding matrices a second time changes: how many, and |W' − W| / |W| of them all."""

    def __init__(self) -> None:
        self.matrices = 0
        self._lost = self._whole = 0.0

    def add(self, before: Floats, after: Floats) -> None:
        """Two versions of some weights."""
        self._lost += float(np.square(after - before, dtype=np.float64).sum())
        self._whole += float(np.square(before, dtype=np.float64).sum())

    @property
    def error(self) -> float:
        """In the root of the sum of squares; 0 where nothing was rounded."""
        return (self._lost / self._whole) ** 0.5 if self._whole else 0.0


def write(
    out: Path,
    source: Source,
    parts: list[Dense],
    kept: list[Longs],
    measured: Neurons,
    threads: int | None,
    on_progress: OnProgress | None,
) -> Rounding:
    """Write `source` to `out` with the neurons `kept` of each layer, ascending; errors as for
    gguf.Writer, InvalidFileError for a weight that is no number."""
    rows, columns = cuts(parts, kept)
    importance = {
        part.down.weight: np.square(layer.rms[keep])
        for part, keep, layer in zip(parts, kept, measured.layers, strict=True)
    }
    infos = []
    for name, tensor in source.tensors.items():
        shape = tensor.shape
        if name in columns:
            shape = (*shape[:-1], len(columns[name]))
        elif name in rows:
            shape = (len(rows[name]), *shape[1:])
        infos.append(TensorInfo(name, shape, tensor.format))
    report = on_progress or (lambda what, done, total: None)
    rounding = Rounding()
    with Writer(
        out, _values(source, kept, measured), infos,
        on_progress=lambda done, total: report("writing", done, total),
    ) as writer:  # fmt: skip
        for name, tensor in source.tensors.items():
            tensor.check_weights(source.path)
            if name in columns:
                data = _narrowed(tensor, columns[name], importance[name], threads, rounding)
                writer.add(name, data)
            elif name in rows:
                writer.add(name, some_rows(tensor, rows[name]))
            else:
                writer.add(name, tensor.data)
        writer.finish()
    return rounding


def cuts(parts: list[Dense], kept: list[Longs]) -> tuple[dict[str, Longs], dict[str, Longs]]:
    """What stays: rows (of vectors values) by name, and columns by name."""
    starts: dict[str, dict[int, Longs]] = {}
    columns: dict[str, Longs] = {}
    for part, keep in zip(parts, kept, strict=True):
        before = [part.up]
        if isinstance(part, GatedFeedForward):
            before.append(part.gate)
            if part.sub_norm is not None:
                starts[part.sub_norm.weight] = {0: keep}
        for linear in before:
            for name in (linear.weight, linear.bias):
                if name is not None:  # gate and up may be slices of one matrix
                    starts.setdefault(name, {})[linear.row_start] = keep
        columns[part.down.weight] = keep
    rows = {
        name: np.concatenate([start + keep for start, keep in sorted(views.items())])
        for name, views in starts.items()
    }
    return rows, columns


def some_rows(tensor: Tensor, keep: Longs) -> Bytes:
    """The bytes of some rows of a matrix, or of some values of a vector."""
    if len(tensor.shape) == 1:
        assert tensor.format.block_weights == 1, f"{tensor.name} is a vector of {tensor.format}"
        return tensor.data.reshape(len(tensor.data) // tensor.format.block_bytes, -1)[keep]
    return tensor.data[keep]


def _narrowed(
    tensor: Tensor, keep: Longs, importance: Floats, threads: int | None, rounding: Rounding
) -> Iterator[Bytes]:
    """Some columns of a matrix in its own type, a slab of rows at a time."""
    format = tensor.format
    rounding.matrices += format.encode is None
    step = max(1, SLAB_WEIGHTS // tensor.cols)
    for first in range(0, tensor.rows, step):
        weights = tensor.decode_rows(first, first + step)[:, keep]
        if format.encode is not None:
            yield format.encode(weights)
            continue
        data = rtn.quantize(weights, format.name, importance, threads)
        rounding.add(weights, format.decode(data))
        yield data


def _values(source: Source, kept: list[Longs], measured: Neurons) -> Mapping[str, Plain | Value]:
    """The source's keys, but for those that describe another file, and what was pruned."""
    key = f"{source.metadata['general.architecture']}.{LENGTH_KEY}"
    before, after = source.values[key], len(kept[0])
    length = [after] * len(kept) if before.is_array else after
    dropped = {*SPLIT_KEYS, *OUR_KEYS}
    values: dict[str, Plain | Value] = {
        name: value
        for name, value in source.values.items()
        if name not in dropped and not name.startswith(CARD_PREFIX)
    }
    texts = [{"name": text.name, "sha256": text.sha256} for text in measured.texts]
    return values | {
        key: replace(before, value=length),
        "trit.version": trit_version(),
        "trit.prune.feed_forward_length": Value(ValueType.UINT32, measured.layers[0].neurons),
        "trit.prune.kept": np.concatenate(kept).astype(np.int32),
        "trit.prune.texts": json.dumps(texts, sort_keys=True),
    }
