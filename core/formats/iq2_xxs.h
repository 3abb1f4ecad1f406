// IQ2_XXS: groups of 32 as four entries of a codebook of 256 × 8, each with eight signs.
// weight = d · (scale + ½) / 4 · sign · entry.
//
//   0: d fp16   2: eight times four entries of 8 bits and a word: four times seven signs, scale
//   on top
#pragma once

#include <cstdint>

#include "formats/_iq.h"

namespace trit::TRIT_ISA {

namespace iq2_xxs {

constexpr auto kCodebook = expand<8, 0>(kIq2XxsCodebook, kIq2XxsLevels);

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 256, row += 66) {
    const float d = read_half(row);
    for (int g = 0; g < 8; ++g) {
      const uint8_t* entries = row + 2 + 8 * g;
      const uint32_t word = read_u32(entries + 4);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
      for (int e = 0; e < 4; e += 2, out += 16) {
        const uint32_t signs =
            even_signs((word >> (7 * e)) & 127) | even_signs((word >> (7 * e + 7)) & 127) << 8;
        write_signed(kCodebook.weights[entries[e]], kCodebook.weights[entries[e + 1]], signs, scale,
                     out);
      }
    }
  }
}

inline void pack(const Entries& block, uint8_t* out) {
  write_u16(out, block.d);
  for (int i = 0; i < 32; ++i) out[2 + i / 4 * 8 + i % 4] = static_cast<uint8_t>(block.entry[i]);
  for (int g = 0; g < 8; ++g) write_u32(out + 6 + 8 * g, signs_and_scale(block, g));
}

}  // namespace iq2_xxs

constexpr Format format_iq2_xxs = {
    .name = "iq2_xxs",
    .ggml_type = 16,
    .block_weights = 256,
    .block_bytes = 66,
    .group = 32,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = iq2_xxs::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pack_entries = iq2_xxs::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
