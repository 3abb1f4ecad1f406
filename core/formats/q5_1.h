// Q5_1: 32 codes of 5 bits, a scale and a minimum; weight = d · q + m.
//
//   0: d fp16   2: m fp16   4: the fifth bits, weight i in bit i   8: the low four bits as in q4_0
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_span.h"

namespace trit::TRIT_ISA {

namespace q5_1 {

constexpr Grid kGrid = {
    .block_weights = 32, .block_bytes = 24, .group = 32, .offset = 0, .has_mins = true};

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

// The block at byte `first` of the pair is columns 32b … 32b + 31.
template <int first, typename Out>
inline void lay_block(const uint8_t* pair, int b, Out& out) {
  store(out.scales[b], halves<first>(pair));
  store(out.mins[b], negated_halves<first + 2>(pair));
  store_five_bits<first + 4, first + 8>(pair, 8 * b, out);
}

template <typename Out>
inline void panel(const uint8_t* tile, int columns, Out& out) {
  const int blocks = columns / 32;
  TRIT_UNROLL
  for (int b = 0; b + 1 < blocks; b += 2) {
    const uint8_t* pair = tile + b / 2 * 12 * kLineBytes;
    lay_block<0>(pair, b, out);
    lay_block<24>(pair, b + 1, out);
  }
  if (blocks % 2 != 0) lay_block<0>(tile + blocks / 2 * 12 * kLineBytes, blocks - 1, out);
}

}  // namespace q5_1

constexpr Format format_q5_1 = {
    .name = "q5_1",
    .ggml_type = 7,
    .block_weights = q5_1::kGrid.block_weights,
    .block_bytes = q5_1::kGrid.block_bytes,
    .group = q5_1::kGrid.group,
    .offset = q5_1::kGrid.offset,
    .has_mins = q5_1::kGrid.has_mins,
    .code_bits = 5,
    .decode = decode_blocks<q5_1::kGrid, q5_1::unpack>,
    .unpack = q5_1::unpack,
    .pack = q5_1::pack,
    .pieces = nullptr,
    .panel = q5_1::panel<Panel>,
    .dot = TRIT_DOTS(q5_1),
};

}  // namespace trit::TRIT_ISA
