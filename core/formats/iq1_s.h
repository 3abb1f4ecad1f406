// IQ1_S: groups of 32 as four entries of a codebook of 2048 × 8 ternary digits.
// weight = d · (2 · scale + 1) · (entry ± ⅛).
//
//   0: d fp16   2: 32 bytes, low eight bits of the entries
//   34: eight words of 16 bits: four times three high bits, scale in bits 12 … 14, sign of the
//   shift in bit 15
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq1_s {

constexpr auto kCodebook = expand<8, -1>(kIq1SCodebook, kIq1SLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 50) {
    const float d = read_half(row);
    for (int g = 0; g < 8; ++g) {
      const uint32_t word = read_u16(row + 34 + 2 * g);
      const float scale = d * static_cast<float>(2 * ((word >> 12) & 7) + 1);
      const bool down = (word & 0x8000) != 0;
      for (int e = 0; e < 4; e += 2, out += 16) {
        const uint8_t* low = row + 2 + 4 * g + e;
        const uint32_t one = low[0] | (((word >> (3 * e)) & 7) << 8);
        const uint32_t two = low[1] | (((word >> (3 * e + 3)) & 7) << 8);
        write_shifted(kCodebook.weights[one], kCodebook.weights[two], down, down, scale, out);
      }
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  write_u16(out, block.d);
  for (int g = 0; g < 8; ++g) {
    const uint16_t* entry = block.entry + 4 * g;
    int word = block.scales[g] << 12 | block.signs[4 * g] << 15;
    for (int e = 0; e < 4; ++e) {
      out[2 + 4 * g + e] = static_cast<uint8_t>(entry[e]);
      word |= (entry[e] >> 8) << (3 * e);
    }
    write_u16(out + 34 + 2 * g, static_cast<uint16_t>(word));
  }
}

}  // namespace iq1_s

constexpr Format format_iq1_s = {
    .name = "iq1_s",
    .ggml_type = 19,
    .block_weights = 256,
    .block_bytes = 50,
    .group = 32,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = iq1_s::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq1_s::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
