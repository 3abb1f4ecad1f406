// TQ1_0: 256 ternary digits, five to a byte; weight = d · (q − 1).
//
//   0: 32 bytes, digit n of byte j is weight 32n + j          (n = 0 … 4)
//   32: 16 bytes, digit n of byte j is weight 160 + 16n + j   (n = 0 … 4)
//   48: 4 bytes, digit n of byte j is weight 240 + 4n + j     (n = 0 … 3)   52: d fp16
//
// A byte is ⌈v · 256 / 243⌉ of the base-three number v whose highest digit comes first, so that
// digit n is the carry of 3 · (byte · 3ⁿ mod 256).
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace tq1_0 {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 54, .group = 32, .offset = 1, .has_mins = false};

template <int digits, int run>
void split_digits(const uint8_t* in, uint8_t* out) {
  for (int j = 0; j < run; ++j) {
    int rest = in[j];
    for (int n = 0; n < digits; ++n) {
      out[n * run + j] = static_cast<uint8_t>((rest * 3) >> 8);
      rest = (rest * 3) & 255;
    }
  }
}

template <int digits, int run>
void join_digits(const uint8_t* in, uint8_t* out) {
  for (int j = 0; j < run; ++j) {
    int value = 0;
    for (int n = 0; n < 5; ++n) value = 3 * value + (n < digits ? in[n * run + j] : 0);
    out[j] = static_cast<uint8_t>((value * 256 + 242) / 243);
  }
}

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block + 52));
  split_digits<5, 32>(block, out.codes);
  split_digits<5, 16>(block + 32, out.codes + 160);
  split_digits<4, 4>(block + 48, out.codes + 240);
}

inline void pack(const Block& block, uint8_t* out) {
  join_digits<5, 32>(block.codes, out);
  join_digits<5, 16>(block.codes + 160, out + 32);
  join_digits<4, 4>(block.codes + 240, out + 48);
  write_u16(out + 52, block.d);
}

// Digits 0 … `digits` − 1 of a piece; digit n goes to line + n · distance.
template <int digits, typename Out>
inline void store_digits(Bytes rest, int line, int distance, Out& out) {
  TRIT_UNROLL
  for (int n = 0; n < digits; ++n) {
    store_line(line + n * distance, triple_carry(rest), out);
    rest = triple(rest);
  }
}

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  Bytes piece[4];
  TRIT_UNROLL
  for (int half = 0; half < 2; ++half) {
    load_lines(tile, 16 * half, piece);
    TRIT_UNROLL
    for (int k = 0; k < 4; ++k) store_digits<5>(piece[k], 4 * half + k, 8, out);
  }
  load_lines(tile, 32, piece);
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) store_digits<5>(piece[k], 40 + k, 4, out);
  store_digits<4>(load_line(tile, 12), 60, 1, out);
  repeat_scale(low_half_to_floats(load_line(tile, 13)), out);
}

}  // namespace tq1_0

constexpr Format format_tq1_0 = {
    .name = "tq1_0",
    .ggml_type = 34,
    .block_weights = tq1_0::kGrid.block_weights,
    .block_bytes = tq1_0::kGrid.block_bytes,
    .group = tq1_0::kGrid.group,
    .offset = tq1_0::kGrid.offset,
    .has_mins = tq1_0::kGrid.has_mins,
    .code_bits = 2,
    .decode = decode_blocks<tq1_0::kGrid, tq1_0::unpack>,
    .unpack = tq1_0::unpack,
    .pack = tq1_0::pack,
    .pieces = nullptr,
    .panel = tq1_0::panel<Panel>,
    .dot = TRIT_DOTS(tq1_0),
};

}  // namespace trit::TRIT_ISA
