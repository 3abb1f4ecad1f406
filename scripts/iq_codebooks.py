"""Writes `core/formats/_codebooks.h`: the codebooks of the IQ formats, taken from the gguf package.

The codebooks are data that a search found once; the core keeps them as constants so that decoding
needs no set-up. Each entry (four or eight weights) is one 16-bit number, the indices of its weights
into a short list of levels, first weight in the lowest bits. Run it from anywhere; it rewrites the
header. `tests/core/test_formats.py` checks that header and package agree.
"""

from pathlib import Path

import numpy as np
from gguf import quants

FORMATS = ("iq1_s", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s")
PER_LINE = 11

HEADER = """\
// Codebooks of the IQ formats, written by scripts/iq_codebooks.py from the gguf package.
//
// One number per entry: the indices of its weights into the levels, first weight in the lowest
// bits.
// clang-format off
#pragma once

#include <cstdint>

namespace trit {
"""


def table(name: str) -> str:
    """The C++ constants of one codebook."""
    format = getattr(quants, name.upper())
    format.init_grid()
    levels = np.array(format.grid_map, dtype=np.int64)
    grid = format.grid.reshape(format.grid_shape).astype(np.int64)
    indices = np.searchsorted(levels, grid)
    assert (levels[indices] == grid).all(), f"{name}: the levels are not in ascending order"
    bits = 2 if grid.shape[1] == 8 else 3
    packed = (indices << (bits * np.arange(grid.shape[1]))).sum(axis=1)
    words = [f"0x{word:04x}," for word in packed]
    lines = [" ".join(words[i : i + PER_LINE]) for i in range(0, len(words), PER_LINE)]
    camel = "k" + "".join(part.capitalize() for part in name.split("_"))
    levels_text = ", ".join(str(level) for level in levels)
    body = "\n    ".join(lines)
    return (
        f"\nconstexpr int8_t {camel}Levels[{len(levels)}] = {{{levels_text}}};\n"
        f"constexpr uint16_t {camel}Codebook[{len(packed)}] = {{\n    {body}\n}};\n"
    )


def generate() -> str:
    """The text of the header."""
    return HEADER + "".join(table(name) for name in FORMATS) + "\n} // namespace trit\n"


if __name__ == "__main__":
    header = Path(__file__).parents[1] / "core" / "formats" / "_codebooks.h"
    header.write_text(generate(), encoding="utf-8")
