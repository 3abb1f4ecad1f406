// Q5_1: 32 codes of 5 bits, a scale and a minimum; weight = d · q + m.
//
//   0: d fp16   2: m fp16   4: the fifth bits, weight i in bit i   8: the low four bits as in q4_0
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q5_1 {

constexpr Grid kGrid = {.block_weights = 32,
                        .block_bytes = 24,
                        .group = 32,
                        .offset = 0,
                        .has_mins = true};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  out.dmin = read_u16(block + 2) ^ kHalfSign;
  split_fields<4, 16>(block + 8, out.codes);
  add_fifth_bits(read_u32(block + 4), out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  write_u16(out + 2, block.dmin ^ kHalfSign);
  write_u32(out + 4, fifth_bits(block.codes));
  join_fields<4, 16>(block.codes, out + 8);
}

inline void panel(const TileRows& rows, int columns, Panel& out) {
  for (int b = 0; b < columns / 32; ++b) {
    const int64_t at = b * kGrid.block_bytes;
    store_scale_and_offset(rows, at, b, out);
    store_five_bits(rows, at + 4, at + 8, 8 * b, out);
  }
}

} // namespace q5_1

constexpr Format format_q5_1 = {
    .name = "q5_1",
    .ggml_type = 7,
    .block_weights = q5_1::kGrid.block_weights,
    .block_bytes = q5_1::kGrid.block_bytes,
    .group = q5_1::kGrid.group,
    .offset = q5_1::kGrid.offset,
    .has_mins = q5_1::kGrid.has_mins,
    .wide = false,
    .decode = decode_blocks<q5_1::kGrid, q5_1::unpack>,
    .unpack = q5_1::unpack,
    .pack = q5_1::pack,
    .panel = q5_1::panel,
};

} // namespace trit::TRIT_ISA
