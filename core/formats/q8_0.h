// Q8_0: 32 signed bytes under one scale; weight = d · q.
//
//   0: d fp16   2: 32 × int8
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q8_0 {

constexpr Grid kGrid = {.block_weights = 32,
                        .block_bytes = 34,
                        .group = 32,
                        .offset = 128,
                        .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  for (int i = 0; i < 32; ++i) out.codes[i] = block[2 + i] ^ 0x80; // q + 128
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  for (int i = 0; i < 32; ++i) out[2 + i] = block.codes[i] ^ 0x80;
}

inline void panel(const TileRows& rows, int columns, Panel& out) {
  const Bytes flip = broadcast_lane(0x80808080u);
  for (int b = 0; b < columns / 32; ++b) {
    const int64_t at = b * kGrid.block_bytes;
    store_scale(rows, at, b, out);
    for (int half = 0; half < 2; ++half) {
      Bytes codes[4];
      load_rows(rows.row, at + 2 + 16 * half, codes);
      for (int k = 0; k < 4; ++k) store_line(8 * b + 4 * half + k, codes[k] ^ flip, out);
    }
  }
}

} // namespace q8_0

constexpr Format format_q8_0 = {
    .name = "q8_0",
    .ggml_type = 8,
    .block_weights = q8_0::kGrid.block_weights,
    .block_bytes = q8_0::kGrid.block_bytes,
    .group = q8_0::kGrid.group,
    .offset = q8_0::kGrid.offset,
    .has_mins = q8_0::kGrid.has_mins,
    .wide = true,
    .decode = decode_blocks<q8_0::kGrid, q8_0::unpack>,
    .unpack = q8_0::unpack,
    .pack = q8_0::pack,
    .panel = q8_0::panel,
};

} // namespace trit::TRIT_ISA
