"""Tensors: shapes, decoding in pieces, bytes made on demand, and the check of weights."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from trit import formats
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import _mapping, _tensor
from trit.files._tensor import Tensor, TensorInfo

F32, F16, Q8_0 = formats.get("f32"), formats.get("f16"), formats.get("q8_0")


def q8(rows: tuple[int, ...], cols: int) -> Tensor:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (*rows, cols // 32, 34), dtype=np.uint8)
    blocks[..., 1] &= 0x3F  # finite scales
    return Tensor("t", (*rows, cols), Q8_0, blocks.reshape(*rows, -1))


@pytest.mark.parametrize(
    ("shape", "rows", "cols", "row_bytes"),
    [((64,), 1, 64, 68), ((3, 32), 3, 32, 34), ((2, 3, 64), 6, 64, 68), ((2, 1, 2, 32), 4, 32, 34)],
)
def test_rows_and_columns(shape: tuple[int, ...], rows: int, cols: int, row_bytes: int) -> None:
    info = TensorInfo("t", shape, Q8_0)
    assert (info.rows, info.cols, info.row_bytes) == (rows, cols, row_bytes)
    assert info.nbytes == rows * row_bytes == math.prod(shape) // 32 * 34


def test_a_row_that_fills_no_blocks_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"tensor 'blk\.0\.x' has 48 columns"):
        _ = TensorInfo("blk.0.x", (2, 48), Q8_0).row_bytes


@pytest.mark.parametrize("chunk_bytes", [1, 34, 100, 1 << 22])
def test_decoding_in_pieces_is_decoding(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    tensor = q8((2, 5), 64)
    expected = Q8_0.decode(tensor.data)
    monkeypatch.setattr(_tensor, "_CHUNK_BYTES", chunk_bytes)
    np.testing.assert_array_equal(tensor.decode(), expected)
    np.testing.assert_array_equal(tensor.decode_rows(3, 8), expected.reshape(10, 64)[3:8])
    assert tensor.decode_rows(4, 4).shape == (0, 64)
    assert tensor.decode().shape == (2, 5, 64) and tensor.decode().dtype == np.float32


def test_decoding_takes_little_beside_the_result() -> None:
    tensor = q8((4096,), 4096)
    tensor.decode_rows(0, 8)
    tracemalloc.start()
    weights = tensor.decode()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - weights.nbytes < 40 << 20


def test_bytes_are_made_when_asked_for_and_not_kept() -> None:
    calls = []

    def make() -> np.ndarray:  # type: ignore[type-arg]
        calls.append(1)
        return F32.encode(np.arange(6, dtype=np.float32)).reshape(2, 12)  # type: ignore[misc]

    tensor = Tensor("t", (2, 3), F32, make)
    assert (tensor.nbytes, tensor.rows, calls) == (24, 2, [])
    np.testing.assert_array_equal(tensor.decode(), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(tensor.decode_rows(1, 2), [[3, 4, 5]])
    assert len(calls) == 2


def test_data_of_another_shape_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        _ = Tensor("t", (2, 3), F32, np.zeros((2, 3), dtype=np.uint8)).data
    with pytest.raises(AssertionError):
        _ = Tensor("t", (2, 3), F32, np.zeros((2, 12), dtype=np.int8)).data  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite_are_found(bad: float) -> None:
    good = np.ones((3, 32), dtype=np.float32)
    Tensor("t", (3, 32), F32, good.view(np.uint8)).check_weights("m.gguf")
    q8((3,), 32).check_weights("m.gguf")
    good[1, 7] = bad
    with pytest.raises(InvalidFileError, match=r"m\.gguf: tensor 't' \(f32\): .* got 1 that are"):
        Tensor("t", (3, 32), F32, good.view(np.uint8)).check_weights("m.gguf")
    tensor = q8((3,), 32)
    tensor.data[2, :2] = np.array([bad], dtype="<f2").view(np.uint8)
    with pytest.raises(InvalidFileError, match="expected finite scales, got 1"):
        tensor.check_weights("m.gguf")


def test_codes_that_no_encoder_writes_are_found() -> None:
    tq2 = formats.get("tq2_0")
    data = np.zeros((1, tq2.block_bytes), dtype=np.uint8)
    Tensor("t", (1, 256), tq2, data).check_weights("m.gguf")
    data[0, 5] = 0b11
    with pytest.raises(InvalidFileError, match=r"'t' \(tq2_0\): expected only codes that tq2_0"):
        Tensor("t", (1, 256), tq2, data).check_weights("m.gguf")


def test_pages_given_back_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    data = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    path.write_bytes(data.tobytes())
    mapping = _mapping.Mapping(path)
    view = mapping.bytes
    assert np.array_equal(view, data)
    _mapping.forget()
    assert np.array_equal(view, data)
    mapping.close()
    _mapping.forget()  # what is closed is left alone
