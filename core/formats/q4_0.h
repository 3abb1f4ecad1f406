// Q4_0: 32 codes of 4 bits under one scale; weight = d · (q − 8).
//
//   0: d fp16   2: 16 bytes, byte j holds weight j (low nibble) and 16 + j (high)
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_span.h"

namespace trit::TRIT_ISA {

namespace q4_0 {

constexpr Grid kGrid = {
    .block_weights = 32, .block_bytes = 18, .group = 32, .offset = 8, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  split_fields<4, 16>(block + 2, out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  join_fields<4, 16>(block.codes, out + 2);
}

// The block at byte `first` of the pair is columns 32b … 32b + 31.
template <int first, typename Out>
inline void lay_block(const uint8_t* pair, int b, Out& out) {
  store(out.scales[b], halves<first>(pair));
  store_nibbles<first + 2>(pair, 8 * b, out);
}

template <typename Out>
inline void panel(const uint8_t* tile, int columns, Out& out) {
  const int blocks = columns / 32;
  TRIT_UNROLL
  for (int b = 0; b + 1 < blocks; b += 2) {
    const uint8_t* pair = tile + b / 2 * 9 * kLineBytes;
    lay_block<0>(pair, b, out);
    lay_block<18>(pair, b + 1, out);
  }
  if (blocks % 2 != 0) lay_block<0>(tile + blocks / 2 * 9 * kLineBytes, blocks - 1, out);
}

}  // namespace q4_0

constexpr Format format_q4_0 = {
    .name = "q4_0",
    .ggml_type = 2,
    .block_weights = q4_0::kGrid.block_weights,
    .block_bytes = q4_0::kGrid.block_bytes,
    .group = q4_0::kGrid.group,
    .offset = q4_0::kGrid.offset,
    .has_mins = q4_0::kGrid.has_mins,
    .code_bits = 4,
    .decode = decode_blocks<q4_0::kGrid, q4_0::unpack>,
    .unpack = q4_0::unpack,
    .pack = q4_0::pack,
    .pieces = nullptr,
    .panel = q4_0::panel<Panel>,
    .dot = TRIT_DOTS(q4_0),
};

}  // namespace trit::TRIT_ISA
