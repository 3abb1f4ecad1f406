// Q8_0: 32 signed bytes under one scale; weight = d · q.
//
//   0: d fp16   2: 32 × int8
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_span.h"

namespace trit::TRIT_ISA {

namespace q8_0 {

constexpr Grid kGrid = {
    .block_weights = 32, .block_bytes = 34, .group = 32, .offset = 128, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  for (int i = 0; i < 32; ++i) out.codes[i] = block[2 + i] ^ 0x80;  // q + 128
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  for (int i = 0; i < 32; ++i) out[2 + i] = block.codes[i] ^ 0x80;
}

// The block at byte `first` of the pair is columns 32b … 32b + 31.
template <int first, typename Out>
inline void lay_block(const uint8_t* pair, int b, Out& out) {
  const Bytes flip = broadcast_lane(0x80808080u);
  store(out.scales[b], halves<first>(pair));
  store_line(8 * b, four_bytes<first + 2>(pair) ^ flip, out);
  store_line(8 * b + 1, four_bytes<first + 6>(pair) ^ flip, out);
  store_line(8 * b + 2, four_bytes<first + 10>(pair) ^ flip, out);
  store_line(8 * b + 3, four_bytes<first + 14>(pair) ^ flip, out);
  store_line(8 * b + 4, four_bytes<first + 18>(pair) ^ flip, out);
  store_line(8 * b + 5, four_bytes<first + 22>(pair) ^ flip, out);
  store_line(8 * b + 6, four_bytes<first + 26>(pair) ^ flip, out);
  store_line(8 * b + 7, four_bytes<first + 30>(pair) ^ flip, out);
}

template <typename Out>
inline void panel(const uint8_t* tile, int columns, Out& out) {
  const int blocks = columns / 32;
  TRIT_UNROLL
  for (int b = 0; b + 1 < blocks; b += 2) {
    const uint8_t* pair = tile + b / 2 * 17 * kLineBytes;
    lay_block<0>(pair, b, out);
    lay_block<34>(pair, b + 1, out);
  }
  if (blocks % 2 != 0) lay_block<0>(tile + blocks / 2 * 17 * kLineBytes, blocks - 1, out);
}

}  // namespace q8_0

constexpr Format format_q8_0 = {
    .name = "q8_0",
    .ggml_type = 8,
    .block_weights = q8_0::kGrid.block_weights,
    .block_bytes = q8_0::kGrid.block_bytes,
    .group = q8_0::kGrid.group,
    .offset = q8_0::kGrid.offset,
    .has_mins = q8_0::kGrid.has_mins,
    .code_bits = 8,
    .decode = decode_blocks<q8_0::kGrid, q8_0::unpack>,
    .unpack = q8_0::unpack,
    .pack = q8_0::pack,
    .pieces = nullptr,
    .panel = q8_0::panel<Panel>,
    .dot = TRIT_DOTS(q8_0),
};

}  // namespace trit::TRIT_ISA
