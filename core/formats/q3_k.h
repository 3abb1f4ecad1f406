// Q3_K: 256 codes of 3 bits in 16 groups of 16; weight = d · (scale − 32) · (q − 4).
//
//   0: 32 bytes, bit b of byte j is the third bit of weight 32b + j
//   32: the low two bits as in q2_k   96: 16 scales of 6 bits   108: d fp16
//
// Scale g has its low four bits in a nibble of byte g % 8 (high nibbles from g = 8) and its high
// two in bits 2 · (g / 4) of byte 8 + g % 4.
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q3_k {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 110, .group = 16, .offset = 4, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block + 108), 0);
  const uint8_t* scales = block + 96;
  for (int g = 0; g < 16; ++g) {
    const int low = (scales[g % 8] >> (g / 8 * 4)) & 15;
    const int high = (scales[8 + g % 4] >> (g / 4 * 2)) & 3;
    out.sub_scale[g] = static_cast<int16_t>((low | (high << 4)) - 32);
  }
  for (int r = 0; r < 2; ++r) split_fields<2, 32>(block + 32 + 32 * r, out.codes + 128 * r);
  for (int b = 0; b < 8; ++b) {
    for (int j = 0; j < 32; ++j) {
      out.codes[32 * b + j] |= static_cast<uint8_t>(((block[j] >> b) & 1) << 2);
    }
  }
}

inline void pack(const Block& block, uint8_t* out) {
  for (int j = 0; j < 32; ++j) {
    int bits = 0;
    for (int b = 0; b < 8; ++b) bits |= ((block.codes[32 * b + j] >> 2) & 1) << b;
    out[j] = static_cast<uint8_t>(bits);
  }
  for (int r = 0; r < 2; ++r) join_fields<2, 32>(block.codes + 128 * r, out + 32 + 32 * r);
  uint8_t* scales = out + 96;
  std::memset(scales, 0, 12);
  for (int g = 0; g < 16; ++g) {
    const int scale = block.sub_scale[g] + 32;
    scales[g % 8] |= static_cast<uint8_t>((scale & 15) << (g / 8 * 4));
    scales[8 + g % 4] |= static_cast<uint8_t>((scale >> 4) << (g / 4 * 2));
  }
  write_u16(out + 108, block.d);
}

constexpr uint8_t kPieces[] = {0, 2, 4, 1, 3, 5};

template <typename Out>
inline void store_scales(const uint8_t* tile, Out& out) {
  const Bytes two_bits = broadcast_lane(0x03030303);
  const Bytes first = load_line(tile, 24);
  const Bytes second = load_line(tile, 25);
  const Bytes top = load_line(tile, 26);
  const Floats d = low_half_to_floats(load_line(tile, 27));
  const Bytes scales[4] = {
      low_nibbles(first) | shift_left<4>(top & two_bits),
      low_nibbles(second) | shift_left<4>(shift_right<2>(top) & two_bits),
      high_nibbles(first) | shift_left<4>(shift_right<4>(top) & two_bits),
      high_nibbles(second) | shift_left<4>(shift_right<6>(top) & two_bits),
  };
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) store_groups(scales[k], 32.0f, d, out.scales + 4 * k);
}

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  const Bytes two_bits = broadcast_lane(0x03030303);
  const Bytes third = broadcast_lane(0x04040404);
  TRIT_UNROLL
  for (int half = 0; half < 2; ++half) {
    Bytes bits[4];  // four of each byte are used up by either run
    load_lines(tile, 48 * half, bits);
    TRIT_UNROLL
    for (int r = 0; r < 2; ++r) {
      Bytes packed[4];
      load_lines(tile, 16 + 48 * half + 16 * r, packed);
      TRIT_UNROLL
      for (int k = 0; k < 4; ++k) {
        const int line = 32 * r + 4 * half + k;
        const Bytes low = packed[k];
        store_line(line, (low & two_bits) | (shift_left<2>(bits[k]) & third), out);
        store_line(line + 8, (shift_right<2>(low) & two_bits) | (shift_left<1>(bits[k]) & third),
                   out);
        store_line(line + 16, (shift_right<4>(low) & two_bits) | (bits[k] & third), out);
        store_line(line + 24, (shift_right<6>(low) & two_bits) | (shift_right<1>(bits[k]) & third),
                   out);
        bits[k] = shift_right<4>(bits[k]);
      }
    }
  }
  store_scales(tile, out);
}

}  // namespace q3_k

constexpr Format format_q3_k = {
    .name = "q3_k",
    .ggml_type = 11,
    .block_weights = q3_k::kGrid.block_weights,
    .block_bytes = q3_k::kGrid.block_bytes,
    .group = q3_k::kGrid.group,
    .offset = q3_k::kGrid.offset,
    .has_mins = q3_k::kGrid.has_mins,
    .code_bits = 3,
    .decode = decode_blocks<q3_k::kGrid, q3_k::unpack>,
    .unpack = q3_k::unpack,
    .pack = q3_k::pack,
    .pieces = q3_k::kPieces,
    .panel = q3_k::panel<Panel>,
    .dot = TRIT_DOTS(q3_k),
};

}  // namespace trit::TRIT_ISA
