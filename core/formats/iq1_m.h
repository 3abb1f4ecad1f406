// IQ1_M: groups of 16 as two entries of iq1_s's codebook, each with its own shift.
// weight = d · (2 · scale + 1) · (entry ± ⅛).
//
//   0: 32 bytes, low eight bits of the entries
//   32: 16 bytes, for each entry three high bits and the sign of its shift
//   48: four words of 16 bits: four scales of three bits, and in bits 12 … 15 a quarter of d
//   (fp16), lowest first
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq1_m {

constexpr auto kCodebook = expand<8, -1>(kIq1SCodebook, kIq1SLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 56) {
    uint32_t words[4];
    uint32_t half = 0;
    for (int i = 0; i < 4; ++i) {
      words[i] = read_u16(row + 48 + 2 * i);
      half |= (words[i] >> 12) << (4 * i);
    }
    const float d = half_to_float(static_cast<uint16_t>(half));
    for (int g = 0; g < 16; ++g, out += 16) {
      const float scale = d * static_cast<float>(2 * ((words[g / 4] >> (3 * (g % 4))) & 7) + 1);
      const uint32_t bits = row[32 + g];
      const uint32_t one = row[2 * g] | ((bits & 7) << 8);
      const uint32_t two = row[2 * g + 1] | (((bits >> 4) & 7) << 8);
      write_shifted(kCodebook.weights[one], kCodebook.weights[two], (bits & 0x08) != 0,
                    (bits & 0x80) != 0, scale, out);
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  for (int g = 0; g < 16; ++g) {
    int bits = 0;
    for (int e = 0; e < 2; ++e) {
      const int i = 2 * g + e;
      out[i] = static_cast<uint8_t>(block.entry[i]);
      bits |= (block.entry[i] >> 8 | block.signs[i] << 3) << (4 * e);
    }
    out[32 + g] = static_cast<uint8_t>(bits);
  }
  for (int i = 0; i < 4; ++i) {
    int word = (block.d >> (4 * i) & 15) << 12;
    for (int g = 0; g < 4; ++g) word |= block.scales[4 * i + g] << (3 * g);
    write_u16(out + 48 + 2 * i, static_cast<uint16_t>(word));
  }
}

}  // namespace iq1_m

constexpr Format format_iq1_m = {
    .name = "iq1_m",
    .ggml_type = 29,
    .block_weights = 256,
    .block_bytes = 56,
    .group = 16,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = iq1_m::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq1_m::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
