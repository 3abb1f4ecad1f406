// Q4_0: 32 codes of 4 bits under one scale; weight = d · (q − 8).
//
//   0: d fp16   2: 16 bytes, byte j holds weight j (low nibble) and 16 + j (high)
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q4_0 {

constexpr Grid kGrid = {.block_weights = 32,
                        .block_bytes = 18,
                        .group = 32,
                        .offset = 8,
                        .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  split_fields<4, 16>(block + 2, out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  join_fields<4, 16>(block.codes, out + 2);
}

inline void panel(const TileRows& rows, int columns, Panel& out) {
  for (int b = 0; b < columns / 32; ++b) {
    const int64_t at = b * kGrid.block_bytes;
    store_scale(rows, at, b, out);
    store_nibbles(rows, at + 2, 8 * b, 8 * b + 4, out);
  }
}

} // namespace q4_0

constexpr Format format_q4_0 = {
    .name = "q4_0",
    .ggml_type = 2,
    .block_weights = q4_0::kGrid.block_weights,
    .block_bytes = q4_0::kGrid.block_bytes,
    .group = q4_0::kGrid.group,
    .offset = q4_0::kGrid.offset,
    .has_mins = q4_0::kGrid.has_mins,
    .wide = false,
    .decode = decode_blocks<q4_0::kGrid, q4_0::unpack>,
    .unpack = q4_0::unpack,
    .pack = q4_0::pack,
    .panel = q4_0::panel,
};

} // namespace trit::TRIT_ISA
