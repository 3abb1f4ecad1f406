"""One tensor from the format it is stored in to the one it shall have, a slab of rows at a time.

Every weight passes here on its way into a new file, so this is where weights are checked: no NaN or
Inf goes in, and no value is lost to a float16 it does not fit. Memory: the stored bytes of one
tensor where they are made on demand, plus some slabs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError, UnsupportedError
from trit.files.gguf import Tensor
from trit.formats import Format
from trit.machine.processors import default_threads

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
# float32 (rows, columns), format name, importance float32 (columns,) -> uint8 (rows, row bytes)
Encoder = Callable[[Floats, str, Floats | None], Bytes]

SLAB_WEIGHTS = 1 << 22  # 16 MiB as float32: enough rows for all threads, little memory
PART_WEIGHTS = 1 << 18  # 1 MiB as float32: stays in a core's cache from decoding to encoding
PROBE_WEIGHTS = 1 << 18
TERNARY = ("tq1_0", "tq2_0")
# No format stores a float16 larger than the largest weight: below this all are finite.
SAFE_FLOAT16 = 60_000.0


@dataclass(frozen=True)
class Transcoder:
    """How tensors of one file are rewritten.

    `path` names the source in errors; `encode` rounds onto the packed formats; `any_values` lets
    ternary formats take weights that are not ternary. `threads` (None: those the process may
    use) share the decoding and the plain formats' encoding, by rows; numpy lets go of the
    interpreter meanwhile.
    """

    path: object
    encode: Encoder
    any_values: bool = False
    threads: int | None = None

    def pieces(
        self, tensor: Tensor, target: Format, importance: Floats | None = None
    ) -> Iterator[Bytes]:
        """The tensor's new bytes, in order, as uint8 (rows, row bytes).

        `importance` is float32 (matrices, columns). Raises InvalidFileError, naming tensor and
        index, for NaN or Inf; UnsupportedError for values the target cannot hold.
        """
        if tensor.format is target:
            tensor.check_weights(self.path)
            yield tensor.data.reshape(tensor.rows, -1)
            return
        stored = tensor.data.reshape(tensor.rows, -1)  # made once: it may be costly
        matrices = 1 if importance is None else len(importance)
        rows = tensor.rows // matrices
        step = max(1, SLAB_WEIGHTS // tensor.cols)
        with self._pool() as pool:
            for matrix in range(matrices):
                columns = None if importance is None else importance[matrix]
                last = (matrix + 1) * rows
                for first in range(matrix * rows, last, step):
                    slab = stored[first : min(first + step, last)]
                    yield self._slab(pool, tensor, target, first, slab, columns)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads or default_threads())

    def _slab(
        self,
        pool: ThreadPoolExecutor,
        tensor: Tensor,
        target: Format,
        first: int,
        slab: Bytes,
        importance: Floats | None,
    ) -> Bytes:
        """The new bytes of some rows, of which `first` is the index of the first."""
        weights = np.empty((len(slab), tensor.cols), np.float32)
        data = np.empty((len(slab), target.row_bytes(tensor.cols)), np.uint8)

        def decode(part: slice) -> float:
            weights[part] = tensor.format.decode(slab[part])
            largest = self._check(tensor, target, first + part.start, weights[part])
            if target.encode is not None:
                data[part] = self._encode(target, weights[part], None)
            return largest

        each = max(1, PART_WEIGHTS // tensor.cols)
        parts = [slice(at, min(at + each, len(slab))) for at in range(0, len(slab), each)]
        largest = max(pool.map(decode, parts))
        if target.encode is None:
            data = self._encode(target, weights, importance)
        if largest > SAFE_FLOAT16 and not _holds(target, data, largest):
            raise self._too_large(tensor, target, largest)
        return data

    def check_first_rows(self, tensor: Tensor, target: Format) -> None:
        """Raise what `pieces` would raise for the first rows."""
        if tensor.format is not target:
            rows = max(1, min(tensor.rows, PROBE_WEIGHTS // tensor.cols))
            stored = tensor.data.reshape(tensor.rows, -1)
            self._check(tensor, target, 0, tensor.format.decode(stored[:rows]))

    def seconds(self, tensor: Tensor, target: Format) -> float:
        """How long this tensor will take, judged by its first rows; errors as for `pieces`."""
        rows = max(1, min(tensor.rows, PROBE_WEIGHTS // tensor.cols))
        slab = tensor.data.reshape(tensor.rows, -1)[:rows]
        if tensor.format is target:
            return 0.0  # copied: the disk's affair
        with self._pool() as pool:
            self._slab(pool, tensor, target, 0, slab, None)  # loads code, starts threads
            begun = time.perf_counter()
            self._slab(pool, tensor, target, 0, slab, None)
        return (time.perf_counter() - begun) * tensor.rows / rows

    def _check(self, tensor: Tensor, target: Format, first: int, weights: Floats) -> float:
        """Raise if a weight cannot be stored; return the largest magnitude."""
        low, high = float(weights.min()), float(weights.max())  # NaN comes through both
        if not (np.isfinite(low) and np.isfinite(high)):
            row, column = np.unravel_index(int(np.argmin(np.isfinite(weights))), weights.shape)
            index = np.unravel_index((first + int(row)) * tensor.cols + int(column), tensor.shape)
            raise InvalidFileError(
                self.path,
                f"tensor {tensor.name!r} [{', '.join(str(int(i)) for i in index)}]",
                f"expected a finite weight, got {weights[row, column]}",
            )
        if target.name in TERNARY and not self.any_values:
            self._check_ternary(tensor, target, weights)
        return max(-low, high)

    def _check_ternary(self, tensor: Tensor, target: Format, weights: Floats) -> None:
        blocks = np.abs(weights).reshape(-1, target.block_weights)
        largest = blocks.max(axis=1, keepdims=True)
        if ((blocks != 0) & (blocks != largest)).any():
            raise UnsupportedError(
                f"{self.path}: tensor {tensor.name!r} is not ternary: within a block of "
                f"{target.block_weights} weights {target.name} can hold only -d, 0 and d.\n"
                "Only models trained that way survive it. Train a ternary student of this one\n"
                "(trit distill MODEL --student TQ2_0), take Q2_K, or --force to round anyway."
            )

    def _encode(self, target: Format, weights: Floats, importance: Floats | None) -> Bytes:
        if target.encode is None:
            return self.encode(weights, target.name, importance)
        return target.encode(weights).reshape(len(weights), -1)

    def _too_large(self, tensor: Tensor, target: Format, largest: float) -> UnsupportedError:
        return UnsupportedError(
            f"{self.path}: tensor {tensor.name!r} has weights up to {largest:.6g}; {target.name} "
            f"cannot hold them (float16 ends at 65504).\n"
            f"Keep them in bf16 or f32: --type bf16, or --tensor-type '{tensor.name}=bf16'."
        )


def _holds(target: Format, data: Bytes, largest: float) -> bool:
    """Whether the rounded slab still has its largest weight, if only roughly.

    A plain F16 would have become Inf; an encoder clamps a scale that float16 cannot hold.
    """
    reached = float(np.abs(target.decode(data)).max())
    return math.isfinite(reached) and reached > largest / 2
