"""The core's formats, on every instruction set, against the numpy twins and each other.

Bytes are random, so that scales are also Inf, NaN, subnormal and negative. Floats are compared as
bits: rounding once too often, or in another order, fails. Only what a NaN carries is left open.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from trit import _core, formats

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[2]
ROWS = {row["name"]: row for row in _core.formats()}
INTEGER = [name for name, row in ROWS.items() if row["integer"]]
# But for mxfp4, whose scale is no fp16: the twin has no unpack.
WRITABLE = [name for name, row in ROWS.items() if row["writable"] and formats.get(name).unpack]
# What a panel's codes exceed the twin's factors by.
OFFSETS = {
    **{"q4_0": 8, "q5_0": 16, "q3_k": 4, "q6_k": 32, "tq1_0": 1, "tq2_0": 1},
    **{"q8_0": 128, "iq4_nl": 128, "iq4_xs": 128},
}
GROUPS_OF_16 = ("q2_k", "q3_k", "q6_k")


def random_rows(name: str, rows: int, columns: int, seed: int = 0) -> Bytes:
    """Rows of any bytes, uint8 (rows, row_bytes)."""
    shape = (rows, formats.get(name).row_bytes(columns))
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def legal_blocks(name: str, blocks: int) -> Bytes:
    """Blocks that an encoder could have written: of tq1_0's bytes not all are."""
    raw = random_rows(name, blocks, formats.get(name).block_weights, seed=1)
    if name != "tq1_0":
        return raw
    twin = formats.get(name)
    assert twin.unpack is not None and twin.pack is not None
    unpacked = twin.unpack(raw)
    return twin.pack(unpacked)


def bits(values: Floats) -> NDArray[np.uint32]:
    """The bit patterns of float32 values, every NaN made the same."""
    patterns = np.ascontiguousarray(values).view(np.uint32).copy()
    patterns[np.isnan(values)] = 0x7FC0_0000
    return patterns


def widths(name: str) -> list[int]:
    """Widths of a panel to try: whole, and cut short where the blocks allow it."""
    return [256] if formats.get(name).block_weights == 256 else [32, 64, 224, 256]


def test_core_and_twins_are_the_same_formats() -> None:
    twins = formats.all()
    assert set(ROWS) == set(twins)
    for name, row in ROWS.items():
        numbers = (row["ggml_type"], row["block_weights"], row["block_bytes"])
        twin = twins[name]
        assert numbers == (twin.ggml_type, twin.block_weights, twin.block_bytes), name


@pytest.mark.parametrize("name", ROWS)
def test_decode_is_the_twins_bit_for_bit(name: str, isa: str) -> None:
    data = random_rows(name, rows=40, columns=1024)
    expected = formats.get(name).decode(data)
    assert np.array_equal(bits(_core.decode(name, data, 1024, isa)), bits(expected))


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("columns", [1, 15, 17, 37])
def test_plain_floats_decode_at_any_width(name: str, columns: int, isa: str) -> None:
    data = random_rows(name, rows=3, columns=columns)
    expected = formats.get(name).decode(data)
    assert np.array_equal(bits(_core.decode(name, data, columns, isa)), bits(expected))


@pytest.mark.parametrize("name", WRITABLE)
def test_pack_undoes_unpack(name: str, isa: str) -> None:
    blocks = legal_blocks(name, 300)
    assert np.array_equal(_core.pack(name, *_core.unpack(name, blocks, isa), isa), blocks)


@pytest.mark.parametrize("name", WRITABLE)
def test_unpack_finds_what_the_twin_finds(name: str, isa: str) -> None:
    blocks = random_rows(name, 300, formats.get(name).block_weights, seed=2)
    twin = formats.get(name)
    assert twin.unpack is not None
    expected = twin.unpack(blocks)
    codes, sub_scale, sub_min, d, dmin = _core.unpack(name, blocks, isa)
    # Codes of the formats with levels are indices in both; the others may be stored with an offset.
    offset = 0 if twin.levels else OFFSETS.get(name, 0)
    assert np.array_equal(codes.astype(int) - offset, expected.codes)
    assert np.array_equal(d, expected.d.view(np.uint16))
    if expected.m is not None:
        sign = 0 if expected.mins is not None else 0x8000  # a lone minimum is kept negated
        assert np.array_equal(dmin ^ sign, expected.m.view(np.uint16))
    for found, wanted in ((sub_scale, expected.scales), (sub_min, expected.mins)):
        if wanted is not None:
            assert np.array_equal(found[:, : wanted.shape[1]], wanted)
    if expected.scales is None:
        assert (sub_scale == 1).all()


@pytest.mark.parametrize("name", INTEGER)
def test_panel_means_what_decode_says(name: str, isa: str) -> None:
    for columns in widths(name):
        data = random_rows(name, 16, columns, seed=columns)
        codes, scales, mins = _core.panel(name, data, columns, isa)
        group = columns // len(scales)
        assert group == (16 if name in GROUPS_OF_16 else 32)
        factors = codes.transpose(1, 0, 2).reshape(16, columns).astype(np.float32)
        factors -= np.float32(OFFSETS.get(name, 0))
        with np.errstate(all="ignore"):
            weights = np.repeat(scales.T, group, axis=1) * factors
            if (mins != 0).any():
                weights -= np.repeat(mins.T, group, axis=1)
        assert np.array_equal(bits(weights), bits(formats.get(name).decode(data))), columns


@pytest.mark.parametrize("name", INTEGER)
def test_panels_are_equal_on_every_isa(name: str, isa: str) -> None:
    for columns in widths(name):
        data = random_rows(name, 16, columns, seed=columns + 1)
        codes, scales, mins = _core.panel(name, data, columns, isa)
        same_codes, same_scales, same_mins = _core.panel(name, data, columns, "scalar")
        assert np.array_equal(codes, same_codes)
        assert np.array_equal(bits(scales), bits(same_scales))
        assert np.array_equal(bits(mins), bits(same_mins))


@pytest.mark.parametrize("name", [name for name in INTEGER if name not in OFFSETS])
def test_formats_with_minimums_carry_them(name: str, isa: str) -> None:
    data = random_rows(name, 16, 256, seed=9)
    mins = _core.panel(name, data, 256, isa)[2]
    assert (mins != 0).mean() > 0.5


# Rows that end where the readable memory does. Run in a process of its own, since a kernel that
# reads too far takes it down.
PROBE = """
import ctypes, mmap
import numpy as np
from trit import _core
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 64 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
last = ctypes.c_void_p(start + 63 * page)
assert libc.mprotect(last, ctypes.c_size_t(page), 0) == 0, ctypes.get_errno()
bytes_ = np.frombuffer(memory, dtype=np.uint8, count=63 * page)
for row in _core.formats():
    for columns in (256, 32):
        if columns % row["block_weights"]:
            continue
        row_bytes = columns // row["block_weights"] * row["block_bytes"]
        data = bytes_[-16 * row_bytes :].reshape(16, row_bytes)
        for isa in _core.isas():
            print(row["name"], columns, isa, flush=True)
            _core.decode(row["name"], data, columns, isa)
            if row["integer"]:
                _core.panel(row["name"], data, columns, isa)
print("all read")
"""


@pytest.mark.parametrize("name", INTEGER)
def test_a_panels_codes_have_the_bits_they_say(name: str) -> None:
    data = random_rows(name, 16, 256)
    rows = [data, *(np.full_like(data, byte) for byte in (0, 255))]
    largest = max(int(_core.panel(name, each, 256)[0].max()) for each in rows)
    assert largest.bit_length() == ROWS[name]["code_bits"]


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as Linux has it")
@pytest.mark.unsanitized
def test_no_kernel_reads_past_the_last_row() -> None:
    command = [sys.executable, "-c", PROBE]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stdout.endswith("all read\n"), f"stopped at {run.stdout[-40:]!r}: {run.stderr}"


def generator() -> ModuleType:
    """The script that writes the codebooks of the core."""
    path = ROOT / "scripts" / "iq_codebooks.py"
    spec = importlib.util.spec_from_file_location("generate_codebooks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.unsanitized
def test_codebooks_are_those_of_the_gguf_package() -> None:
    committed = (ROOT / "core" / "formats" / "_codebooks.h").read_text(encoding="utf-8")
    assert committed == generator().generate()
