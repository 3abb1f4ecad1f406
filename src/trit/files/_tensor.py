"""A named tensor whose bytes may still be on disk, or not even made yet.

Shapes are in numpy's order, slowest dimension first: a matrix is (rows, columns), a stack of
experts (experts, rows, columns). A row is the run of weights that blocks are cut from, so its bytes
are whole blocks: `data` is uint8 of shape (*shape[:-1], row_bytes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from trit.errors import InvalidFileError
from trit.formats import Format

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Bytes handled at a time when a whole tensor is walked: small beside any tensor worth walking,
# large beside the cost of a Python call.
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says about a tensor: all but its bytes."""

    name: str
    shape: tuple[int, ...]
    format: Format

    @property
    def cols(self) -> int:
        """Weights per row: the last dimension."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """The product of all dimensions but the last."""
        return prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.format.row_bytes(self.cols, f"tensor {self.name!r}")

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows * self.row_bytes


class Tensor(TensorInfo):
    """A tensor and its bytes.

    `data` is a uint8 array of shape (*shape[:-1], row_bytes) (a view of the file's mapping, for
    tensors read from disk), or a function that makes one. A function is called at every use and its
    result not kept: whoever walks a model holds one tensor at a time.
    """

    _data: Bytes | Callable[[], Bytes]

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        format: Format,
        data: Bytes | Callable[[], Bytes],
    ) -> None:
        super().__init__(name, tuple(shape), format)
        object.__setattr__(self, "_data", data)

    @property
    def data(self) -> Bytes:
        """The bytes: uint8 (*shape[:-1], row_bytes), read-only where they are a file's."""
        data = self._data() if callable(self._data) else self._data
        expected = (*self.shape[:-1], self.row_bytes)
        assert data.dtype == np.uint8, f"{self.name}: {data.dtype}"
        assert data.shape == expected, f"{self.name}: {data.shape}, not {expected}"
        return data

    def decode(self) -> Floats:
        """All weights, float32 of `.shape`, a new array; beside it at most some MiB are used."""
        return self.decode_rows(0, self.rows).reshape(self.shape)

    def decode_rows(self, start: int, stop: int) -> Floats:
        """Rows start to stop (leading dimensions as one): float32 (stop − start, cols)."""
        rows = self.data.reshape(self.rows, self.row_bytes)[start:stop]
        weights = np.empty((len(rows), self.cols), dtype=np.float32)
        step = max(1, _CHUNK_BYTES // max(1, self.row_bytes))
        for first in range(0, len(rows), step):
            weights[first : first + step] = self.format.decode(rows[first : first + step])
        return weights

    def check_weights(self, path: object) -> None:
        """Raise InvalidFileError, naming `path`, if a scale or weight is Inf or NaN or a code is
        illegal.

        Reads every byte, so it belongs to pull, convert, quantize and verify; never to loading.
        """
        data = self.data
        if nonfinite := self.format.nonfinite(data):
            what = "weights" if self.format.block_weights == 1 else "scales"
            problem = f"expected finite {what}, got {nonfinite} that are Inf or NaN"
            raise InvalidFileError(path, f"tensor {self.name!r} ({self.format.name})", problem)
        if invalid := self.format.invalid_codes(data):
            problem = f"expected only codes that {self.format.name} defines, got {invalid} others"
            raise InvalidFileError(path, f"tensor {self.name!r} ({self.format.name})", problem)
