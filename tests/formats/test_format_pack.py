"""pack and unpack are inverses and agree with decode; the checks find bad bytes."""

import dataclasses

import format_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trit import formats
from trit.formats import Format, Unpacked

FORMATS = formats.all()
PACKED = [name for name, format in FORMATS.items() if format.pack]
ENCODED = [name for name, format in FORMATS.items() if format.encode]
every_packed = pytest.mark.parametrize("name", PACKED)

# What trit writes; the other types are only read, whether or not they can be packed.
CODEBOOKS = ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"]
MUST_PACK = "q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs tq1_0 tq2_0"


def test_the_types_that_are_written_can_be_packed() -> None:
    assert {*MUST_PACK.split(), *CODEBOOKS} <= set(PACKED)
    assert ENCODED == ["f32", "f16", "bf16"]


def unpack(format: Format, blocks: oracles.Bytes) -> Unpacked:
    assert format.unpack is not None
    return format.unpack(blocks)


def pack(format: Format, unpacked: Unpacked) -> oracles.Bytes:
    assert format.pack is not None
    return format.pack(unpacked)


def legal(format: Format, blocks: oracles.Bytes) -> oracles.Bytes:
    """The blocks with the bytes that no encoder writes replaced by legal ones."""
    if format.invalid_codes(blocks) == 0:
        return blocks
    unpacked = unpack(format, blocks)
    return pack(format, dataclasses.replace(unpacked, codes=np.minimum(unpacked.codes, 1)))


@every_packed
def test_pack_undoes_unpack_on_many_blocks(name: str) -> None:
    format = FORMATS[name]
    blocks = legal(format, oracles.random_blocks(format, 4096, seed=11))
    assert format.invalid_codes(blocks) == 0
    unpacked = unpack(format, blocks)
    np.testing.assert_array_equal(pack(format, unpacked), blocks)
    oracles.assert_same(format.values(unpacked), format.decode(blocks))


@every_packed
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pack_undoes_unpack_on_any_block(name: str, data: st.DataObject) -> None:
    format = FORMATS[name]
    size = format.block_bytes
    raw = data.draw(
        st.binary(min_size=size, max_size=3 * size).map(lambda b: b[: len(b) // size * size])
    )
    blocks = legal(format, np.frombuffer(raw, dtype=np.uint8).reshape(-1, size))
    np.testing.assert_array_equal(pack(format, unpack(format, blocks)), blocks)


@every_packed
def test_shapes_and_types_of_what_is_unpacked(name: str) -> None:
    format = FORMATS[name]
    unpacked = unpack(format, oracles.random_blocks(format, 9, seed=12))
    assert unpacked.codes.shape == (9, format.block_weights)
    assert unpacked.codes.dtype in (np.int8, np.uint8)
    assert unpacked.d.shape == (9,) and unpacked.d.dtype == np.float16
    if unpacked.m is not None:
        assert unpacked.m.shape == (9,) and unpacked.m.dtype == np.float16
    groups = format.block_weights // format.group
    for integers in (unpacked.scales, unpacked.mins):
        if integers is not None:
            assert integers.shape == (9, groups) and integers.dtype in (np.int8, np.uint8)
    assert (unpacked.scales is None) == (groups == 1)


@every_packed
def test_no_blocks_are_legal(name: str) -> None:
    format = FORMATS[name]
    none = np.empty((0, format.block_bytes), dtype=np.uint8)
    unpacked = unpack(format, none)
    assert unpacked.codes.shape == (0, format.block_weights)
    assert pack(format, unpacked).shape == none.shape


@pytest.mark.parametrize("name", [name for name in PACKED if name != "q8_0"])
def test_a_code_that_does_not_fit_is_refused(name: str) -> None:
    """It would land in its neighbour's bits. (In q8_0 every int8 is a code.)"""
    format = FORMATS[name]
    unpacked = unpack(format, np.zeros((1, format.block_bytes), dtype=np.uint8))
    codes = unpacked.codes.copy()
    codes[0, 3] = 100
    with pytest.raises(AssertionError):
        pack(format, dataclasses.replace(unpacked, codes=codes))


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "q4_k", "q5_k", "iq4_xs"])
def test_a_scale_that_does_not_fit_is_refused(name: str) -> None:
    format = FORMATS[name]
    unpacked = unpack(format, np.zeros((1, format.block_bytes), dtype=np.uint8))
    assert unpacked.scales is not None
    scales = unpacked.scales.copy()
    scales[0, 1] = 64
    with pytest.raises(AssertionError):
        pack(format, dataclasses.replace(unpacked, scales=scales))


@pytest.mark.parametrize("name", CODEBOOKS)
def test_what_no_entry_means_is_refused(name: str) -> None:
    format = FORMATS[name]
    unpacked = unpack(format, oracles.random_blocks(format, 1, seed=17))
    assert unpacked.scales is not None
    for scale in (2, 33):  # even; beyond the bits
        scales = unpacked.scales.copy()
        scales[0, 1] = scale
        with pytest.raises(AssertionError):
            pack(format, dataclasses.replace(unpacked, scales=scales))
    codes = unpacked.codes.copy()
    codes[0, 9] = -codes[0, 9]  # an odd number of minus signs; a shift unlike its neighbours'
    changed = dataclasses.replace(unpacked, codes=codes)
    if name in ("iq2_s", "iq3_s"):  # every weight has a sign of its own
        pack(format, changed)
    else:
        with pytest.raises(AssertionError):
            pack(format, changed)


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "tq1_0", "tq2_0"])
def test_what_gguf_encodes_is_legal_and_kept(name: str) -> None:
    from gguf import GGMLQuantizationType, quants

    format = FORMATS[name]
    weights = np.random.default_rng(13).standard_normal((32, 1024)).astype(np.float32)
    data = quants.quantize(weights, GGMLQuantizationType(format.ggml_type))
    assert data.shape == (32, format.row_bytes(1024))
    assert format.invalid_codes(data) == 0 and format.nonfinite(data) == 0
    blocks = data.reshape(-1, format.block_bytes)
    np.testing.assert_array_equal(pack(format, unpack(format, blocks)), blocks)


@pytest.mark.parametrize("name", ["tq1_0", "tq2_0"])
def test_ternary_digits_are_packed_as_gguf_packs_them(name: str) -> None:
    from gguf import GGMLQuantizationType, quants

    format = FORMATS[name]
    codes = np.random.default_rng(14).integers(-1, 2, (64, 256)).astype(np.int8)
    codes[:, 0] = 1
    packed = pack(format, Unpacked(codes=codes, d=np.ones(64, dtype=np.float16)))
    expected = quants.quantize(codes.astype(np.float32), GGMLQuantizationType(format.ggml_type))
    np.testing.assert_array_equal(packed, expected)


def test_illegal_ternary_codes_are_counted() -> None:
    clean = np.zeros((5, 66), dtype=np.uint8)
    format = FORMATS["tq2_0"]
    assert format.invalid_codes(clean) == 0
    clean[2, 10], clean[4, 63] = 0b11_00_10_11, 0b01_11_10_00
    assert format.invalid_codes(clean) == 3
    assert format.invalid_codes(np.full((5, 66), 0xFF, dtype=np.uint8)) == 5 * 256


def test_illegal_ternary_bytes_are_counted() -> None:
    """243 of the 256 patterns are five digits, 81 are four; each kind lies at its own bytes."""
    format = FORMATS["tq1_0"]
    blocks = np.zeros((256, 54), dtype=np.uint8)
    blocks[:, 40] = np.arange(256)
    assert format.invalid_codes(blocks) == 13
    blocks[:, 40], blocks[:, 51] = 0, np.arange(256)
    assert format.invalid_codes(blocks) == 256 - 81


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("mxfp4", "nvfp4")])
def test_scales_that_are_not_finite_are_counted(name: str) -> None:
    """Counted if, and only if, weights come out as Inf or NaN."""
    format = FORMATS[name]
    blocks = oracles.random_blocks(format, 60_000, seed=15)
    bad = ~np.isfinite(format.decode(blocks)).all(axis=1)
    assert bad.any() and not bad.all()
    assert format.nonfinite(blocks[~bad]) == 0
    per_block = max(1, len(format.fp16_at))
    assert bad.sum() <= format.nonfinite(blocks) <= bad.sum() * per_block
    assert all(format.nonfinite(block[None]) > 0 for block in blocks[bad][:200])


def test_scales_of_eight_bits() -> None:
    blocks = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 17, axis=1)
    assert FORMATS["mxfp4"].nonfinite(blocks) == 1
    assert np.isfinite(
        FORMATS["nvfp4"].decode(oracles.random_blocks(FORMATS["nvfp4"], 999, 1))
    ).all()
    assert FORMATS["nvfp4"].nonfinite(np.full((1, 36), 0x7F, dtype=np.uint8)) == 0


@pytest.mark.parametrize("name", ENCODED)
def test_plain_floats_encode_as_gguf_does(name: str) -> None:
    from gguf import GGMLQuantizationType, quants

    format = FORMATS[name]
    assert format.encode is not None
    patterns = np.random.default_rng(16).integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    halfway = (np.arange(1 << 16, dtype=np.uint32) << 16) | 0x8000  # bf16's ties, every exponent
    weights = np.concatenate([patterns, halfway, halfway + 1]).view(np.float32)
    with np.errstate(all="ignore"):
        expected = quants.quantize(weights, GGMLQuantizationType(format.ggml_type))
    got = format.encode(weights)
    assert got.dtype == np.uint8 and got.shape == (weights.size * format.block_bytes,)
    oracles.assert_same(format.decode(got), format.decode(expected.view(np.uint8)))


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_every_short_float_survives(name: str) -> None:
    format = FORMATS[name]
    assert format.encode is not None
    every = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    decoded = format.decode(every)
    same = (format.encode(decoded).reshape(-1, 2) == every.reshape(-1, 2)).all(axis=1)
    assert (same | np.isnan(decoded)).all()
