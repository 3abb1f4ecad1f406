// Q3_K: 256 codes of 3 bits in 16 groups of 16; weight = d · (scale − 32) · (q − 4).
//
//   0: 32 bytes, bit b of byte j is the third bit of weight 32b + j
//   32: the low two bits as in q2_k   96: 16 scales of 6 bits   108: d fp16
//
// Scale g has its low four bits in a nibble of byte g % 8 (high nibbles from g = 8) and its high two in
// bits 2 · (g / 4) of byte 8 + g % 4.
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q3_k {

constexpr Grid kGrid = {.block_weights = 256,
                        .block_bytes = 110,
                        .group = 16,
                        .offset = 4,
                        .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block + 108), 0);
  const uint8_t* scales = block + 96;
  for (int g = 0; g < 16; ++g) {
    const int low = (scales[g % 8] >> (g / 8 * 4)) & 15;
    const int high = (scales[8 + g % 4] >> (g / 4 * 2)) & 3;
    out.sub_scale[g] = static_cast<int16_t>((low | (high << 4)) - 32);
  }
  for (int r = 0; r < 2; ++r) split_fields<2, 32>(block + 32 + 32 * r, out.codes + 128 * r);
  for (int b = 0; b < 8; ++b) {
    for (int j = 0; j < 32; ++j) {
      out.codes[32 * b + j] |= static_cast<uint8_t>(((block[j] >> b) & 1) << 2);
    }
  }
}

inline void pack(const Block& block, uint8_t* out) {
  for (int j = 0; j < 32; ++j) {
    int bits = 0;
    for (int b = 0; b < 8; ++b) bits |= ((block.codes[32 * b + j] >> 2) & 1) << b;
    out[j] = static_cast<uint8_t>(bits);
  }
  for (int r = 0; r < 2; ++r) join_fields<2, 32>(block.codes + 128 * r, out + 32 + 32 * r);
  uint8_t* scales = out + 96;
  std::memset(scales, 0, 12);
  for (int g = 0; g < 16; ++g) {
    const int scale = block.sub_scale[g] + 32;
    scales[g % 8] |= static_cast<uint8_t>((scale & 15) << (g / 8 * 4));
    scales[8 + g % 4] |= static_cast<uint8_t>((scale >> 4) << (g / 4 * 2));
  }
  write_u16(out + 108, block.d);
}

} // namespace q3_k

constexpr Format format_q3_k = {
    .name = "q3_k",
    .ggml_type = 11,
    .block_weights = q3_k::kGrid.block_weights,
    .block_bytes = q3_k::kGrid.block_bytes,
    .group = q3_k::kGrid.group,
    .offset = q3_k::kGrid.offset,
    .has_mins = q3_k::kGrid.has_mins,
    .wide = false,
    .decode = decode_blocks<q3_k::kGrid, q3_k::unpack>,
    .unpack = q3_k::unpack,
    .pack = q3_k::pack,
    .panel = panel_by_blocks<q3_k::kGrid, q3_k::unpack>,
};

} // namespace trit::TRIT_ISA
