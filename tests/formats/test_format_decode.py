"""Every format the scan finds decodes to the bits that the gguf package and ggml give."""

import tracemalloc
from pathlib import Path

import format_oracles as oracles
import numpy as np
import pytest

from trit import formats
from trit.formats import Format

FORMATS = list(formats.all().values())


def has_offset(format: Format) -> bool:
    blocks = np.zeros((1, format.block_bytes), dtype=np.uint8)
    return format.unpack is not None and format.unpack(blocks).m is not None


def over(chosen: list[Format]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("format", chosen, ids=lambda format: format.name)


IN_GGUF = [format for format in FORMATS if oracles.gguf_decodes(format)]
# Types with an offset are left out: a compiler may fuse the multiplication and the subtraction.
# F32 is no decoding at all.
IN_GGML = [format for format in FORMATS if not has_offset(format) and format.name != "f32"]


def test_every_format_has_an_oracle() -> None:
    """Two are newer than the gguf package's decoders: ggml and the loops below judge them."""
    assert {format.name for format in FORMATS if format not in IN_GGUF} <= {"q1_0", "q2_0"}


@over(IN_GGUF)
def test_random_blocks_equal_gguf(format: Format) -> None:
    blocks = oracles.random_blocks(format, 4096, seed=format.ggml_type)
    assert_decodes(format, blocks, oracles.gguf_decode(format, blocks))


@over(IN_GGUF)
def test_constant_bytes_equal_gguf(format: Format) -> None:
    """Blocks of one repeated byte: zero blocks, all ones, and what lies between."""
    blocks = np.repeat(np.arange(256, dtype=np.uint8)[:, None], format.block_bytes, axis=1)
    assert_decodes(format, blocks, oracles.gguf_decode(format, blocks))


@over([format for format in IN_GGUF if format.fp16_at])
def test_every_scale_equals_gguf(format: Format) -> None:
    """All 65,536 float16 scales: subnormal, zero of both signs, Inf, NaN."""
    scales = np.arange(1 << 16, dtype="<u2")
    if format.block_weights == 256:  # one in sixteen, which has every kind, is quick
        scales = np.concatenate([scales[5::16], scales[::0x400], scales[1::0x400]])
    blocks = oracles.random_blocks(format, len(scales), seed=1)
    for at in format.fp16_at:
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    assert_decodes(format, blocks, oracles.gguf_decode(format, blocks))


@over(IN_GGML)
def test_random_blocks_equal_ggml(format: Format) -> None:
    blocks = oracles.random_blocks(format, 4096, seed=format.ggml_type + 100)
    assert_decodes(format, blocks, oracles.ggml_decoder(format)(blocks))


@pytest.mark.parametrize(("name", "field_bits"), [("q1_0", 1), ("q2_0", 2)])
def test_slow_twin_of_the_plain_streams(name: str, field_bits: int) -> None:
    format = formats.get(name)
    blocks = oracles.random_blocks(format, 64, seed=5)
    expected = np.empty((64, format.block_weights), dtype=np.float32)
    for block, out in zip(blocks, expected, strict=True):
        d = np.float32(block[:2].view("<f2")[0])
        stream = int.from_bytes(block[2:].tobytes(), "little")
        for index in range(format.block_weights):
            field = stream >> (field_bits * index) & ((1 << field_bits) - 1)
            with np.errstate(invalid="ignore"):
                out[index] = d * np.float32(2 * field - 1 if field_bits == 1 else field - 1)
    assert_decodes(format, blocks, expected)


def test_a_block_by_hand() -> None:
    """q4_k from the drawing in its docstring, with nothing of trit's or gguf's in between."""
    block = np.zeros((1, 144), dtype=np.uint8)
    block[0, 0:2] = np.array([0.5], dtype="<f2").view(np.uint8)  # d
    block[0, 2:4] = np.array([0.25], dtype="<f2").view(np.uint8)  # dmin
    block[0, 4 + 1] = 3  # the scale of group 1
    block[0, 4 + 4 + 1] = 2  # and its min
    block[0, 4 + 0] = 0b10_000000  # the high bits of the scale of group 4: 32
    block[0, 4 + 8] = 5  # and its low bits: 37 in all
    block[0, 16 + 7] = 0xA0  # weight 7 of group 1: a high nibble of run 0
    block[0, 16 + 64 + 9] = 0x06  # weight 9 of group 4: a low nibble of run 2
    expected = np.zeros((1, 256), dtype=np.float32)
    expected[0, 32:64] = -0.25 * 2
    expected[0, 32 + 7] = 0.5 * 3 * 10 - 0.25 * 2
    expected[0, 128 + 9] = 0.5 * 37 * 6
    np.testing.assert_array_equal(formats.get("q4_k").decode(block), expected)


@over(FORMATS)
def test_shapes_views_and_chunks(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leading dimensions stay, the input may be read-only or strided, chunks leave no seam."""
    blocks = oracles.random_blocks(format, 60, seed=2)
    whole = format.decode(blocks)
    data = blocks.reshape(3, 4, 5 * format.block_bytes)
    data.flags.writeable = False
    assert format.decode(data).shape == (3, 4, 5 * format.block_weights)
    strided = np.stack([data, data], axis=1)[:, 1]
    assert_decodes(format, strided, whole.reshape(3, 4, -1))
    assert format.decode(data[:0]).shape == (0, 4, 5 * format.block_weights)
    monkeypatch.setattr("trit.formats._format._CHUNK_WEIGHTS", format.block_weights * 7)
    assert_decodes(format, blocks, whole)


@over(FORMATS)
def test_memory_is_the_result_and_little_more(format: Format) -> None:
    weights = 1 << 22
    data = np.zeros(weights // format.block_weights * format.block_bytes, dtype=np.uint8)
    format.decode(data[: format.block_bytes])  # codebooks are fetched once
    tracemalloc.start()
    try:
        assert format.decode(data).nbytes == weights * 4
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < weights * 4 + (8 << 20)


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_real_tensors_equal_gguf(model: str, request: pytest.FixtureRequest) -> None:
    """Every tensor of a real file, at most 256 KiB of each."""
    path = request.getfixturevalue("zoo_model")(model)
    assert_file_decodes(path)


def test_a_small_real_file_equals_gguf(request: pytest.FixtureRequest) -> None:
    assert_file_decodes(request.getfixturevalue("shared_data")("models/stories260K.gguf"))


def assert_file_decodes(path: Path) -> None:
    from trit.files import gguf

    with gguf.open(path) as file:
        assert file.tensors
        for tensor in file.tensors.values():
            rows = tensor.data.reshape(-1, tensor.row_bytes)
            some = rows[: max(1, (256 << 10) // tensor.row_bytes)]
            assert_decodes(tensor.format, some, oracles.gguf_decode(tensor.format, some))


def assert_decodes(format: Format, data: oracles.Bytes, expected: oracles.Floats) -> None:
    got = format.decode(data)
    oracles.assert_same(got, expected.reshape(got.shape))
