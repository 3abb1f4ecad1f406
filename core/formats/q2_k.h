// Q2_K: 256 codes of 2 bits in 16 groups of 16; weight = d · scale · q − dmin · min.
//
//   0: 16 bytes, scale in the low nibble, min in the high   16: codes   80: d fp16   82: dmin fp16
//
// Codes lie in two runs of 32 bytes: bits 2s and 2s + 1 of byte j of run r are weight
// 128r + 32s + j.
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q2_k {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 84, .group = 16, .offset = 0, .has_mins = true};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block + 80), read_u16(block + 82));
  for (int g = 0; g < 16; ++g) {
    out.sub_scale[g] = block[g] & 15;
    out.sub_min[g] = block[g] >> 4;
  }
  for (int r = 0; r < 2; ++r) split_fields<2, 32>(block + 16 + 32 * r, out.codes + 128 * r);
}

inline void pack(const Block& block, uint8_t* out) {
  for (int g = 0; g < 16; ++g) {
    out[g] = static_cast<uint8_t>((block.sub_scale[g] & 15) | (block.sub_min[g] << 4));
  }
  for (int r = 0; r < 2; ++r) join_fields<2, 32>(block.codes + 128 * r, out + 16 + 32 * r);
  write_u16(out + 80, block.d);
  write_u16(out + 82, block.dmin);
}

constexpr uint8_t kPieces[] = {1, 2, 3, 4, 0};

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  TRIT_UNROLL
  for (int part = 0; part < 4; ++part) {
    store_two_bits(tile, 16 * part, 32 * (part / 2) + 4 * (part % 2), out);
  }
  const Bytes both = load_line(tile, 20);
  const Floats d = low_half_to_floats(both);
  const Floats dmin = low_half_to_floats(shift_right<16>(both));
  Bytes factors[4];
  load_lines(tile, 64, factors);
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_groups(low_nibbles(factors[k]), 0.0f, d, out.scales + 4 * k);
    store_groups(high_nibbles(factors[k]), 0.0f, dmin, out.mins + 4 * k);
  }
}

}  // namespace q2_k

constexpr Format format_q2_k = {
    .name = "q2_k",
    .ggml_type = 10,
    .block_weights = q2_k::kGrid.block_weights,
    .block_bytes = q2_k::kGrid.block_bytes,
    .group = q2_k::kGrid.group,
    .offset = q2_k::kGrid.offset,
    .has_mins = q2_k::kGrid.has_mins,
    .code_bits = 2,
    .decode = decode_blocks<q2_k::kGrid, q2_k::unpack>,
    .unpack = q2_k::unpack,
    .pack = q2_k::pack,
    .pieces = q2_k::kPieces,
    .panel = q2_k::panel<Panel>,
    .dot = TRIT_DOTS(q2_k),
};

}  // namespace trit::TRIT_ISA
