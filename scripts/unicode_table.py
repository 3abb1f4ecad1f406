"""Write core/unicode_table.h: the general categories that pre-tokenizers ask about.

The version is pinned to Unicode 15.1, the one llama.cpp's tables have, so that both split a text
at the same places. Run with Python 3.13, or with the package unicodedata2 15.1.0 installed:

    python scripts/unicode_table.py > core/unicode_table.h
"""

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

VERSION = "15.1.0"
BITS = {"L": 1, "N": 2, "M": 4, "P": 8, "S": 16}
WHITE_SPACE = 32
# White_Space of PropList.txt: what \s means in a tokenizer's regular expression.
SPACES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)}
SPACES |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def main() -> None:
    assert unicodedata.unidata_version == VERSION, unicodedata.unidata_version
    ranges: list[tuple[int, int]] = []
    for point in range(0x110000):
        bits = BITS.get(unicodedata.category(chr(point))[0], 0)
        bits |= WHITE_SPACE if point in SPACES else 0
        if not ranges or ranges[-1][1] != bits:
            ranges.append((point, bits))
    print(f"// Written by scripts/unicode_table.py from Unicode {VERSION}; do not edit.")
    print("// Each entry is first code point << 8 | class bits; it lasts to the next entry.")
    print("#pragma once\n\n#include <cstdint>\n\nnamespace trit {\n\n// clang-format off")
    print(f"inline constexpr uint32_t unicode_ranges[{len(ranges)}] = {{")
    entries = [f"0x{point << 8 | bits:x}," for point, bits in ranges]
    for start in range(0, len(entries), 8):
        print("    " + " ".join(entries[start : start + 8]))
    print("};\n// clang-format on\n\n}  // namespace trit")


if __name__ == "__main__":
    main()
