// IQ2_XS: groups of 16 as two entries of a codebook of 512 × 8, each with eight signs.
// weight = d · (scale + ½) / 4 · sign · entry.
//
//   0: d fp16   2: 32 words of 16 bits: entry of 9 bits, seven signs   66: 16 scales of 4 bits
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq2_xs {

constexpr auto kCodebook = expand<8, 0>(kIq2XsCodebook, kIq2XsLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 74) {
    const float d = read_half(row);
    for (int g = 0; g < 16; ++g, out += 16) {
      const int bits = (row[66 + g / 2] >> (4 * (g % 2))) & 15;
      const float scale = d * (0.5f + static_cast<float>(bits)) * 0.25f;
      const uint32_t one = read_u16(row + 2 + 4 * g);
      const uint32_t two = read_u16(row + 4 + 4 * g);
      const uint32_t signs = even_signs(one >> 9) | even_signs(two >> 9) << 8;
      write_signed(kCodebook.weights[one & 511], kCodebook.weights[two & 511], signs, scale, out);
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  write_u16(out, block.d);
  for (int i = 0; i < 32; ++i) {
    const int word = block.entry[i] | (block.signs[i] & 127) << 9;
    write_u16(out + 2 + 2 * i, static_cast<uint16_t>(word));
  }
  join_pairs(block.scales, 8, out + 66);
}

}  // namespace iq2_xs

constexpr Format format_iq2_xs = {
    .name = "iq2_xs",
    .ggml_type = 17,
    .block_weights = 256,
    .block_bytes = 74,
    .group = 16,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = iq2_xs::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq2_xs::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
