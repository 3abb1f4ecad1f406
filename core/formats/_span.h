// Bytes of a tile at any even place: how the blocks of 32 weights are read.
//
// Their blocks are 18 to 34 bytes long, so two of them fill whole lines of four bytes and every
// second block begins in the middle of one.
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

// Bytes at … at + 3 of each row.
template <int at>
inline Bytes four_bytes(const uint8_t* tile) {
  static_assert(at % 2 == 0);
  if constexpr (at % 4 == 0) {
    return load_line(tile, at / 4);
  } else {
    return shift_right<16>(load_line(tile, at / 4)) | shift_left<16>(load_line(tile, at / 4 + 1));
  }
}

template <int at>
inline Floats halves(const uint8_t* tile) {
  const Bytes both = load_line(tile, at / 4);
  return low_half_to_floats(at % 4 == 0 ? both : shift_right<16>(both));
}

// A minimum, from an offset that is added.
template <int at>
inline Floats negated_halves(const uint8_t* tile) {
  const Bytes both = load_line(tile, at / 4) ^ broadcast_lane(0x80008000u);
  return low_half_to_floats(at % 4 == 0 ? both : shift_right<16>(both));
}

// Sixteen bytes from byte `at`: the low nibbles are four lines, the high ones the next four.
template <int at, typename Out>
inline void store_nibbles(const uint8_t* tile, int line, Out& out) {
  const Bytes packed[4] = {four_bytes<at>(tile), four_bytes<at + 4>(tile), four_bytes<at + 8>(tile),
                           four_bytes<at + 12>(tile)};
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_line(line + k, low_nibbles(packed[k]), out);
    store_line(line + k + 4, high_nibbles(packed[k]), out);
  }
}

// The 32 codes of a q5_0 or q5_1 block: fifth bits from byte `bits`, nibbles from byte `at`.
template <int bits, int at, typename Out>
inline void store_five_bits(const uint8_t* tile, int line, Out& out) {
  const Bytes fifth = four_bytes<bits>(tile);
  const Bytes a = four_bytes<at>(tile);
  const Bytes b = four_bytes<at + 4>(tile);
  const Bytes c = four_bytes<at + 8>(tile);
  const Bytes d = four_bytes<at + 12>(tile);
  store_line(line, low_nibbles(a) | spread_bits<0>(fifth), out);
  store_line(line + 1, low_nibbles(b) | spread_bits<1>(fifth), out);
  store_line(line + 2, low_nibbles(c) | spread_bits<2>(fifth), out);
  store_line(line + 3, low_nibbles(d) | spread_bits<3>(fifth), out);
  store_line(line + 4, high_nibbles(a) | spread_bits<4>(fifth), out);
  store_line(line + 5, high_nibbles(b) | spread_bits<5>(fifth), out);
  store_line(line + 6, high_nibbles(c) | spread_bits<6>(fifth), out);
  store_line(line + 7, high_nibbles(d) | spread_bits<7>(fifth), out);
}

}  // namespace trit::TRIT_ISA
