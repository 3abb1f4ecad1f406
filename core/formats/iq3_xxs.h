// IQ3_XXS: groups of 32 as eight entries of a codebook of 256 × 4, every two with eight signs.
// weight = d · (scale + ½) / 2 · sign · entry.
//
//   0: d fp16   2: 64 entries of 8 bits   66: eight words: four times seven signs, scale on top
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq3_xxs {

constexpr auto kCodebook = expand<4, 0>(kIq3XxsCodebook, kIq3XxsLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 98) {
    const float d = read_half(row);
    for (int g = 0; g < 8; ++g) {
      const uint32_t word = read_u32(row + 66 + 4 * g);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
      for (int e = 0; e < 4; e += 2, out += 16) {
        const uint8_t* entries = row + 2 + 8 * g + 2 * e;
        const uint32_t signs =
            even_signs((word >> (7 * e)) & 127) | even_signs((word >> (7 * e + 7)) & 127) << 8;
        const uint8_t* const four[4] = {
            kCodebook.weights[entries[0]], kCodebook.weights[entries[1]],
            kCodebook.weights[entries[2]], kCodebook.weights[entries[3]]};
        write_signed(four, signs, scale, out);
      }
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  write_u16(out, block.d);
  for (int i = 0; i < 64; ++i) out[2 + i] = static_cast<uint8_t>(block.entry[i]);
  for (int g = 0; g < 8; ++g) write_u32(out + 66 + 4 * g, signs_and_scale(block, g));
}

}  // namespace iq3_xxs

constexpr Format format_iq3_xxs = {
    .name = "iq3_xxs",
    .ggml_type = 18,
    .block_weights = 256,
    .block_bytes = 98,
    .group = 32,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = iq3_xxs::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq3_xxs::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
