// Q4_1: 32 codes of 4 bits, a scale and a minimum; weight = d · q + m.
//
//   0: d fp16   2: m fp16   4: 16 bytes, byte j holds weight j (low nibble) and 16 + j (high)
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q4_1 {

constexpr Grid kGrid = {.block_weights = 32,
                        .block_bytes = 20,
                        .group = 32,
                        .offset = 0,
                        .has_mins = true};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  out.dmin = read_u16(block + 2) ^ kHalfSign;
  split_fields<4, 16>(block + 4, out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  write_u16(out + 2, block.dmin ^ kHalfSign);
  join_fields<4, 16>(block.codes, out + 4);
}

inline void panel(const TileRows& rows, int columns, Panel& out) {
  for (int b = 0; b < columns / 32; ++b) {
    const int64_t at = b * kGrid.block_bytes;
    store_scale_and_offset(rows, at, b, out);
    store_nibbles(rows, at + 4, 8 * b, 8 * b + 4, out);
  }
}

} // namespace q4_1

constexpr Format format_q4_1 = {
    .name = "q4_1",
    .ggml_type = 3,
    .block_weights = q4_1::kGrid.block_weights,
    .block_bytes = q4_1::kGrid.block_bytes,
    .group = q4_1::kGrid.group,
    .offset = q4_1::kGrid.offset,
    .has_mins = q4_1::kGrid.has_mins,
    .wide = false,
    .decode = decode_blocks<q4_1::kGrid, q4_1::unpack>,
    .unpack = q4_1::unpack,
    .pack = q4_1::pack,
    .panel = q4_1::panel,
};

} // namespace trit::TRIT_ISA
