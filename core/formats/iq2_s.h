// IQ2_S: groups of 16 as two entries of a codebook of 1024 × 8, each with eight signs.
// weight = d · (scale + ½) / 4 · sign · entry.
//
//   0: d fp16   2: 32 bytes, low eight bits of the entries   34: 32 bytes of signs
//   66: 8 bytes, four times two high bits   74: 16 scales of 4 bits
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq2_s {

constexpr auto kCodebook = expand<8>(kIq2SCodebook, kIq2SLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 82) {
    const float d = read_half(row);
    for (int g = 0; g < 16; ++g) {
      const int bits = (row[74 + g / 2] >> (4 * (g % 2))) & 15;
      const float scale = d * (0.5f + static_cast<float>(bits)) * 0.25f;
      for (int e = 2 * g; e < 2 * g + 2; ++e, out += 8) {
        const int entry = row[2 + e] | (((row[66 + e / 4] >> (2 * (e % 4))) & 3) << 8);
        write_signed<8>(kCodebook.weights[entry], row[34 + e], scale, out);
      }
    }
  }
}

}  // namespace iq2_s

constexpr Format format_iq2_s = {
    .name = "iq2_s",
    .ggml_type = 22,
    .block_weights = 256,
    .block_bytes = 82,
    .group = 16,
    .offset = 0,
    .has_mins = false,
    .wide = false,
    .decode = iq2_s::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .panel = nullptr,
};

}  // namespace trit::TRIT_ISA
