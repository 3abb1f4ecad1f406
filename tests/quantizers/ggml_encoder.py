"""ggml's own encoder, from an installed llama-cpp-python: what rounding is measured against."""

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trit import formats

# Types that ggml aborts on without importance.
WEIGHTED_ONLY = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"}


class GgmlEncoder:
    """`ggml_quantize_chunk` over numpy arrays."""

    def __init__(self, library: Path) -> None:
        self._ggml = ctypes.CDLL(str(library))
        self._ggml.ggml_quantize_chunk.restype = ctypes.c_size_t

    def quantize(
        self,
        weights: NDArray[np.float32],
        name: str,
        importance: NDArray[np.float32] | None = None,
    ) -> NDArray[np.uint8]:
        """Weights (rows, cols) float32 contiguous -> (rows, row_bytes) uint8."""
        rows, cols = weights.shape
        if importance is None and name in WEIGHTED_ONLY:
            importance = np.ones(cols, dtype=np.float32)
        format = formats.get(name)
        out = np.empty((rows, format.row_bytes(cols)), dtype=np.uint8)
        data = None if importance is None else importance.ctypes.data_as(ctypes.c_void_p)
        self._ggml.ggml_quantize_chunk(
            ctypes.c_int(format.ggml_type),
            weights.ctypes.data_as(ctypes.c_void_p),
            out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0),
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
            data,
        )
        return out


def load() -> GgmlEncoder:
    """The encoder; skips the test where llama-cpp-python is not installed."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        pytest.skip("llama-cpp-python is not installed (pip install 'trit[bench]')")
    libraries = sorted((Path(found.origin).parent / "lib").glob("libggml-base.*"))
    if not libraries:
        pytest.skip(f"no libggml-base beside {found.origin}")
    return GgmlEncoder(libraries[0])
