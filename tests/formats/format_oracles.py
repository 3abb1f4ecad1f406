"""What the tests of the formats compare with: the gguf package, ggml itself, and bits.

The gguf package is a dependency of trit; ggml is llama-cpp-python's, an extra, and asked only where
it is installed. Float results are compared as bits: only what a NaN carries is left open, since
IEEE 754 leaves it open too.
"""

import ctypes
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trit.formats import Format

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def bits(values: Floats) -> NDArray[np.uint32]:
    """The bit patterns of float32 values, every NaN made the same."""
    patterns = np.ascontiguousarray(values).view(np.uint32).copy()
    patterns[np.isnan(values)] = 0x7FC0_0000
    return patterns


def assert_same(got: Floats, expected: Floats) -> None:
    """Equal shapes, types and bits."""
    assert got.dtype == expected.dtype == np.float32
    assert got.shape == expected.shape
    different = bits(got) != bits(expected)
    if different.any():
        where = tuple(np.argwhere(different)[0])
        pytest.fail(
            f"{int(different.sum())} of {different.size} weights differ, first at {where}: "
            f"{got[where]!r} instead of {expected[where]!r}"
        )


def random_blocks(format: Format, blocks: int, seed: int) -> Bytes:
    """Bytes of every kind, so that scales are also Inf, NaN, subnormal and negative."""
    shape = (blocks, format.block_bytes)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def gguf_decodes(format: Format) -> bool:
    """Whether the installed gguf package can decode this format."""
    from gguf import GGMLQuantizationType, quants

    if format.ggml_type not in {int(each) for each in GGMLQuantizationType}:
        return False
    try:
        blocks = np.zeros((1, format.block_bytes), dtype=np.uint8)
        quants.dequantize(blocks, GGMLQuantizationType(format.ggml_type))
    except NotImplementedError:
        return False
    return True


def gguf_decode(format: Format, data: Bytes) -> Floats:
    """The gguf package's decoder."""
    from gguf import GGMLQuantizationType, quants

    with np.errstate(all="ignore"):
        return quants.dequantize(data, GGMLQuantizationType(format.ggml_type))


class _TypeTraits(ctypes.Structure):
    _fields_ = (  # struct ggml_type_traits of ggml.h
        ("type_name", ctypes.c_char_p),
        ("block_weights", ctypes.c_int64),
        ("block_weights_interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


@cache
def _ggml() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("lib/*ggml-base.*"))
    return ctypes.CDLL(str(found[0])) if found else None


def ggml_decoder(format: Format) -> Callable[[Bytes], Floats]:
    """ggml's own decoder of blocks (n, block_bytes); skips the test where it is not to be had."""
    library = _ggml()
    if library is None:
        pytest.skip("llama-cpp-python, whose ggml is the oracle, is not installed")
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    traits = library.ggml_get_type_traits(format.ggml_type).contents
    if traits.type_name is None or traits.type_name.decode().lower() != format.name:
        pytest.skip(f"the installed ggml does not know {format.name}")
    assert (traits.block_weights, traits.block_bytes) == (format.block_weights, format.block_bytes)

    def decode(blocks: Bytes) -> Floats:
        weights = np.empty((len(blocks), format.block_weights), dtype=np.float32)
        traits.to_float(blocks.ctypes.data, weights.ctypes.data, weights.size)
        return weights

    return decode
