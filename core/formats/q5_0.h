// Q5_0: 32 codes of 5 bits under one scale; weight = d · (q − 16).
//
//   0: d fp16   2: the fifth bits, weight i in bit i   6: the low four bits as in q4_0
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q5_0 {

constexpr Grid kGrid = {.block_weights = 32,
                        .block_bytes = 22,
                        .group = 32,
                        .offset = 16,
                        .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  split_fields<4, 16>(block + 6, out.codes);
  add_fifth_bits(read_u32(block + 2), out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  write_u32(out + 2, fifth_bits(block.codes));
  join_fields<4, 16>(block.codes, out + 6);
}

inline void panel(const TileRows& rows, int columns, Panel& out) {
  for (int b = 0; b < columns / 32; ++b) {
    const int64_t at = b * kGrid.block_bytes;
    store_scale(rows, at, b, out);
    store_five_bits(rows, at + 2, at + 6, 8 * b, out);
  }
}

} // namespace q5_0

constexpr Format format_q5_0 = {
    .name = "q5_0",
    .ggml_type = 6,
    .block_weights = q5_0::kGrid.block_weights,
    .block_bytes = q5_0::kGrid.block_bytes,
    .group = q5_0::kGrid.group,
    .offset = q5_0::kGrid.offset,
    .has_mins = q5_0::kGrid.has_mins,
    .wide = false,
    .decode = decode_blocks<q5_0::kGrid, q5_0::unpack>,
    .unpack = q5_0::unpack,
    .pack = q5_0::pack,
    .panel = q5_0::panel,
};

} // namespace trit::TRIT_ISA
