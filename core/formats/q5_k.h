// Q5_K: 256 codes of 5 bits in 8 groups of 32; weight = d · scale · q − dmin · min.
//
//   0: d fp16   2: dmin fp16   4: scales and mins (see _kscales.h)
//   16: 32 bytes, bit b of byte j is the fifth bit of weight 32b + j
//   48: the low four bits as in q4_k
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_kscales.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q5_k {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 176, .group = 32, .offset = 0, .has_mins = true};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block), read_u16(block + 2));
  unpack_scales(block + 4, out.sub_scale, out.sub_min);
  for (int r = 0; r < 4; ++r) split_fields<4, 32>(block + 48 + 32 * r, out.codes + 64 * r);
  for (int b = 0; b < 8; ++b) {
    for (int j = 0; j < 32; ++j) {
      out.codes[32 * b + j] |= static_cast<uint8_t>(((block[16 + j] >> b) & 1) << 4);
    }
  }
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  write_u16(out + 2, block.dmin);
  pack_scales(block.sub_scale, block.sub_min, out + 4);
  for (int j = 0; j < 32; ++j) {
    int bits = 0;
    for (int b = 0; b < 8; ++b) bits |= ((block.codes[32 * b + j] >> 4) & 1) << b;
    out[16 + j] = static_cast<uint8_t>(bits);
  }
  for (int r = 0; r < 4; ++r) join_fields<4, 32>(block.codes + 64 * r, out + 48 + 32 * r);
}

constexpr uint8_t kPieces[] = {0, 1, 3, 5, 7, 9, 2, 4, 6, 8, 10};

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  const Bytes fifth = broadcast_lane(0x10101010);
  Bytes header[4];
  load_lines(tile, 0, header);
  store_scales(header, out);
  TRIT_UNROLL
  for (int half = 0; half < 2; ++half) {
    Bytes bits[4];  // two of each byte are used up by every run
    load_lines(tile, 16 + 80 * half, bits);
    TRIT_UNROLL
    for (int r = 0; r < 4; ++r) {
      Bytes packed[4];
      load_lines(tile, 32 + 80 * half + 16 * r, packed);
      TRIT_UNROLL
      for (int k = 0; k < 4; ++k) {
        const int line = 16 * r + 4 * half + k;
        store_line(line, low_nibbles(packed[k]) | (shift_left<4>(bits[k]) & fifth), out);
        store_line(line + 8, high_nibbles(packed[k]) | (shift_left<3>(bits[k]) & fifth), out);
        bits[k] = shift_right<2>(bits[k]);
      }
    }
  }
}

}  // namespace q5_k

constexpr Format format_q5_k = {
    .name = "q5_k",
    .ggml_type = 13,
    .block_weights = q5_k::kGrid.block_weights,
    .block_bytes = q5_k::kGrid.block_bytes,
    .group = q5_k::kGrid.group,
    .offset = q5_k::kGrid.offset,
    .has_mins = q5_k::kGrid.has_mins,
    .code_bits = 5,
    .decode = decode_blocks<q5_k::kGrid, q5_k::unpack>,
    .unpack = q5_k::unpack,
    .pack = q5_k::pack,
    .pieces = q5_k::kPieces,
    .panel = q5_k::panel<Panel>,
    .dot = TRIT_DOTS(q5_k),
};

}  // namespace trit::TRIT_ISA
