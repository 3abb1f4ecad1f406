// IQ3_S: groups of 32 as eight entries of a codebook of 512 × 4 with their signs.
// weight = d · (2 · scale + 1) · sign · entry.
//
//   0: d fp16   2: 64 bytes, low eight bits of the entries   66: 8 bytes, the ninth bits
//   74: 32 bytes of signs   106: 8 scales of 4 bits
#pragma once

#include <cstdint>
#include <cstring>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq3_s {

constexpr auto kCodebook = expand<4, 0>(kIq3SCodebook, kIq3SLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 110) {
    const float d = read_half(row);
    for (int g = 0; g < 8; ++g) {
      const int bits = (row[106 + g / 2] >> (4 * (g % 2))) & 15;
      const float scale = d * static_cast<float>(1 + 2 * bits);
      for (int e = 0; e < 8; e += 4, out += 16) {
        const uint8_t* const low = row + 2 + 8 * g + e;
        const int high = row[66 + g] >> e;
        const uint8_t* const four[4] = {kCodebook.weights[low[0] | ((high & 1) << 8)],
                                        kCodebook.weights[low[1] | ((high & 2) << 7)],
                                        kCodebook.weights[low[2] | ((high & 4) << 6)],
                                        kCodebook.weights[low[3] | ((high & 8) << 5)]};
        write_signed(four, read_u16(row + 74 + 4 * g + e / 2), scale, out);
      }
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  write_u16(out, block.d);
  std::memset(out + 66, 0, 8);
  for (int i = 0; i < 64; ++i) {
    out[2 + i] = static_cast<uint8_t>(block.entry[i]);
    out[66 + i / 8] |= static_cast<uint8_t>(block.entry[i] >> 8 << (i % 8));
  }
  std::memcpy(out + 74, block.signs, 32);
  join_pairs(block.scales, 4, out + 106);
}

}  // namespace iq3_s

constexpr Format format_iq3_s = {
    .name = "iq3_s",
    .ggml_type = 21,
    .block_weights = 256,
    .block_bytes = 110,
    .group = 32,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = iq3_s::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq3_s::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
