// IQ2_XS: groups of 16 as two entries of a codebook of 512 × 8, each with eight signs.
// weight = d · (scale + ½) / 4 · sign · entry.
//
//   0: d fp16   2: 32 words of 16 bits: entry of 9 bits, seven signs   66: 16 scales of 4 bits
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq2_xs {

constexpr auto kCodebook = expand<8>(kIq2XsCodebook, kIq2XsLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 74) {
    const float d = read_half(row);
    for (int g = 0; g < 16; ++g) {
      const int bits = (row[66 + g / 2] >> (4 * (g % 2))) & 15;
      const float scale = d * (0.5f + static_cast<float>(bits)) * 0.25f;
      for (int e = 0; e < 2; ++e, out += 8) {
        const uint32_t word = read_u16(row + 2 + 4 * g + 2 * e);
        write_signed<8>(kCodebook.weights[word & 511], even_signs(word >> 9), scale, out);
      }
    }
  }
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
    .wide = false,
    .decode = iq2_xs::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .panel = nullptr,
};

}  // namespace trit::TRIT_ISA
