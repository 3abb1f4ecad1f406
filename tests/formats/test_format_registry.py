"""The folder is the registry, and agrees with ggml's numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

from trit import formats
from trit.errors import UnsupportedError

# In ggml, but never the type of a stored weight: activations, and plain integers and doubles.
NOT_WEIGHTS = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}

NEWEST = 42  # the last type known when this was written: a newer gguf package is no failure


def test_every_weight_type_of_gguf_is_here_with_its_sizes() -> None:
    from gguf import GGML_QUANT_SIZES

    expected = {
        kind.name.lower(): (int(kind), *sizes)
        for kind, sizes in GGML_QUANT_SIZES.items()
        if kind.name not in NOT_WEIGHTS and kind <= NEWEST
    }
    ours = {
        name: (format.ggml_type, format.block_weights, format.block_bytes)
        for name, format in formats.all().items()
    }
    # q2_0 is newer than some gguf packages; its numbers are those of ggml.h and ggml-common.h.
    assert ours == expected | {"q2_0": (42, 64, 18)}


def test_files_and_names_agree() -> None:
    folder = Path(formats.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(formats.all())
    assert list(formats.all()) == sorted(files, key=lambda name: formats.get(name).ggml_type)


def test_looking_up() -> None:
    assert formats.get("Q4_K") is formats.get("q4_k") is formats.by_type(12)
    assert formats.all() is formats.all()
    with pytest.raises(UnsupportedError, match=r"no format is called 'q9_z'.*q4_k"):
        formats.get("q9_z")
    for removed in (4, 5, 31, 36, 43, -1):
        with pytest.raises(UnsupportedError, match=f"tensor type {removed} "):
            formats.by_type(removed)


@pytest.mark.parametrize("name", list(formats.all()))
def test_numbers_fit_together(name: str) -> None:
    format = formats.get(name)
    assert format.block_weights % format.group == 0
    assert format.bits_per_weight == format.block_bytes * 8 / format.block_weights
    assert format.row_bytes(3 * format.block_weights) == 3 * format.block_bytes
    assert (format.unpack is None) == (format.pack is None)


def test_bits_per_weight_of_the_published_table() -> None:
    published = {"q4_0": 4.5, "q8_0": 8.5, "q2_k": 2.625, "q6_k": 6.5625, "iq1_s": 1.5625}
    published |= {"tq1_0": 1.6875, "q3_k": 3.4375, "mxfp4": 4.25, "q1_0": 1.125, "bf16": 16.0}
    assert {name: formats.get(name).bits_per_weight for name in published} == published


def test_a_row_that_fills_no_blocks() -> None:
    where = "model.gguf: tensor 'blk.3.ffn_down.weight'"
    with pytest.raises(UnsupportedError) as caught:
        formats.get("q4_k").row_bytes(576, where)
    assert str(caught.value) == (
        "model.gguf: tensor 'blk.3.ffn_down.weight' has 576 columns; "
        "q4_k needs a multiple of 256.\n"
        "Use --type q8_0 for it, or leave the fallback on."
    )
    with pytest.raises(UnsupportedError, match="Use --type f16"):  # nor would q8_0 fit
        formats.get("q4_k").row_bytes(1000)


def test_gguf_is_imported_only_for_codebooks() -> None:
    """The package costs 160 ms; opening and decoding an ordinary model must not pay them."""
    code = """
import sys
import numpy as np
import trit.formats
assert len(sys.modules.keys() & {"gguf", "torch", "trit.formats.q4_k"}) == 0
decode = trit.formats.get("q4_k").decode
decode(np.zeros(144, dtype=np.uint8))
assert "gguf" not in sys.modules
trit.formats.get("iq2_s").decode(np.zeros(82, dtype=np.uint8))
assert "gguf" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
