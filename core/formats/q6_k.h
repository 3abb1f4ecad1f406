// Q6_K: 256 codes of 6 bits in 16 groups of 16; weight = d · scale · (q − 32).
//
//   0: low four bits   128: high two bits   192: 16 × int8 scales   208: d fp16
//
// For each half h of 128 weights: nibble n of byte 64h + 32k + j is the low part of weight
// 128h + 64n + 32k + j, and bits 2s of byte 128 + 32h + j are the high part of weight
// 128h + 32s + j.
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q6_k {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 210, .group = 16, .offset = 32, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block + 208), 0);
  for (int g = 0; g < 16; ++g) out.sub_scale[g] = static_cast<int8_t>(block[192 + g]);
  for (int h = 0; h < 2; ++h) {
    uint8_t high[128];
    split_fields<4, 64>(block + 64 * h, out.codes + 128 * h);
    split_fields<2, 32>(block + 128 + 32 * h, high);
    for (int i = 0; i < 128; ++i) out.codes[128 * h + i] |= static_cast<uint8_t>(high[i] << 4);
  }
}

inline void pack(const Block& block, uint8_t* out) {
  for (int h = 0; h < 2; ++h) {
    uint8_t high[128];
    for (int i = 0; i < 128; ++i) high[i] = block.codes[128 * h + i] >> 4;
    join_fields<4, 64>(block.codes + 128 * h, out + 64 * h);
    join_fields<2, 32>(high, out + 128 + 32 * h);
  }
  for (int g = 0; g < 16; ++g) out[192 + g] = static_cast<uint8_t>(block.sub_scale[g]);
  write_u16(out + 208, block.d);
}

constexpr uint8_t kPieces[] = {0, 2, 8, 1, 3, 9, 4, 6, 10, 5, 7, 11, 12};

template <typename Out>
inline void store_scales(const uint8_t* tile, Out& out) {
  Bytes scales[4];
  load_lines(tile, 192, scales);
  const Floats d = low_half_to_floats(load_line(tile, 52));
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_groups(scales[k] ^ broadcast_lane(0x80808080u), 128.0f, d, out.scales + 4 * k);
  }
}

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  const Bytes high = broadcast_lane(0x30303030);
  TRIT_UNROLL
  for (int h = 0; h < 2; ++h) {
    TRIT_UNROLL
    for (int half = 0; half < 2; ++half) {
      Bytes first[4], second[4], top[4];
      const int at = 96 * h + 48 * half;
      load_lines(tile, at, first);
      load_lines(tile, at + 16, second);
      load_lines(tile, at + 32, top);
      TRIT_UNROLL
      for (int k = 0; k < 4; ++k) {
        const int line = 32 * h + 4 * half + k;
        store_line(line, low_nibbles(first[k]) | (shift_left<4>(top[k]) & high), out);
        store_line(line + 8, low_nibbles(second[k]) | (shift_left<2>(top[k]) & high), out);
        store_line(line + 16, high_nibbles(first[k]) | (top[k] & high), out);
        store_line(line + 24, high_nibbles(second[k]) | (shift_right<2>(top[k]) & high), out);
      }
    }
  }
  store_scales(tile, out);
}

}  // namespace q6_k

constexpr Format format_q6_k = {
    .name = "q6_k",
    .ggml_type = 14,
    .block_weights = q6_k::kGrid.block_weights,
    .block_bytes = q6_k::kGrid.block_bytes,
    .group = q6_k::kGrid.group,
    .offset = q6_k::kGrid.offset,
    .has_mins = q6_k::kGrid.has_mins,
    .code_bits = 6,
    .decode = decode_blocks<q6_k::kGrid, q6_k::unpack>,
    .unpack = q6_k::unpack,
    .pack = q6_k::pack,
    .pieces = q6_k::kPieces,
    .panel = q6_k::panel<Panel>,
    .dot = TRIT_DOTS_OF_MANY_REGISTERS(q6_k),
};

}  // namespace trit::TRIT_ISA
