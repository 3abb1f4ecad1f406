// IQ2_S: groups of 16 as two entries of a codebook of 1024 × 8, each with eight signs.
// weight = d · (scale + ½) / 4 · sign · entry.
//
//   0: d fp16   2: 32 bytes, low eight bits of the entries   34: 32 bytes of signs
//   66: 8 bytes, four times two high bits   74: 16 scales of 4 bits
#pragma once

#include <cstdint>
#include <cstring>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq2_s {

constexpr auto kCodebook = expand<8, 0>(kIq2SCodebook, kIq2SLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 82) {
    const float d = read_half(row);
    for (int g = 0; g < 16; ++g, out += 16) {
      const int bits = (row[74 + g / 2] >> (4 * (g % 2))) & 15;
      const float scale = d * (0.5f + static_cast<float>(bits)) * 0.25f;
      const int high = row[66 + g / 2] >> (4 * (g % 2));
      const int one = row[2 + 2 * g] | ((high & 3) << 8);
      const int two = row[3 + 2 * g] | (((high >> 2) & 3) << 8);
      write_signed(kCodebook.weights[one], kCodebook.weights[two], read_u16(row + 34 + 2 * g),
                   scale, out);
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  write_u16(out, block.d);
  std::memset(out + 66, 0, 8);
  for (int i = 0; i < 32; ++i) {
    out[2 + i] = static_cast<uint8_t>(block.entry[i]);
    out[66 + i / 4] |= static_cast<uint8_t>(block.entry[i] >> 8 << (i % 4 * 2));
  }
  std::memcpy(out + 34, block.signs, 32);
  join_pairs(block.scales, 8, out + 74);
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
    .code_bits = 0,
    .decode = iq2_s::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq2_s::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
