// Q5_0: 32 codes of 5 bits under one scale; weight = d · (q − 16).
//
//   0: d fp16   2: the fifth bits, weight i in bit i   6: the low four bits as in q4_0
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_span.h"

namespace trit::TRIT_ISA {

namespace q5_0 {

constexpr Grid kGrid = {
    .block_weights = 32, .block_bytes = 22, .group = 32, .offset = 16, .has_mins = false};

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

// The block at byte `first` of the pair is columns 32b … 32b + 31.
template <int first, typename Out>
inline void lay_block(const uint8_t* pair, int b, Out& out) {
  store(out.scales[b], halves<first>(pair));
  store_five_bits<first + 2, first + 6>(pair, 8 * b, out);
}

template <typename Out>
inline void panel(const uint8_t* tile, int columns, Out& out) {
  const int blocks = columns / 32;
  TRIT_UNROLL
  for (int b = 0; b + 1 < blocks; b += 2) {
    const uint8_t* pair = tile + b / 2 * 11 * kLineBytes;
    lay_block<0>(pair, b, out);
    lay_block<22>(pair, b + 1, out);
  }
  if (blocks % 2 != 0) lay_block<0>(tile + blocks / 2 * 11 * kLineBytes, blocks - 1, out);
}

}  // namespace q5_0

constexpr Format format_q5_0 = {
    .name = "q5_0",
    .ggml_type = 6,
    .block_weights = q5_0::kGrid.block_weights,
    .block_bytes = q5_0::kGrid.block_bytes,
    .group = q5_0::kGrid.group,
    .offset = q5_0::kGrid.offset,
    .has_mins = q5_0::kGrid.has_mins,
    .code_bits = 5,
    .decode = decode_blocks<q5_0::kGrid, q5_0::unpack>,
    .unpack = q5_0::unpack,
    .pack = q5_0::pack,
    .pieces = nullptr,
    .panel = q5_0::panel<Panel>,
    .dot = TRIT_DOTS(q5_0),
};

}  // namespace trit::TRIT_ISA
