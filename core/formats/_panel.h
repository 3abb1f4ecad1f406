// Splitting the lines of a tile into codes: what the formats' `panel` functions are made of.
#pragma once

#include <cstdint>

#include "formats/_block.h"

namespace trit::TRIT_ISA {

inline Bytes load_line(const uint8_t* tile, int line) {
  return load_bytes(tile + kLineBytes * line);
}

// Sixteen bytes of each row from byte `at`, a multiple of four.
inline void load_lines(const uint8_t* tile, int at, Bytes out[4]) {
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) out[k] = load_line(tile, at / 4 + k);
}

inline void store_line(int line, Bytes codes, Panel& out) { store(&out.codes[line][0][0], codes); }

inline Bytes low_nibbles(Bytes packed) { return packed & broadcast_lane(0x0f0f0f0f); }
inline Bytes high_nibbles(Bytes packed) {
  return shift_right<4>(packed) & broadcast_lane(0x0f0f0f0f);
}

// Sixteen bytes of nibbles of each row from byte `at`: the low ones are columns 4 · low …, the high
// ones columns 4 · high ….
template <typename Out>
inline void store_nibbles(const uint8_t* tile, int at, int low, int high, Out& out) {
  Bytes packed[4];
  load_lines(tile, at, packed);
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_line(low + k, low_nibbles(packed[k]), out);
    store_line(high + k, high_nibbles(packed[k]), out);
  }
}

// Sixteen bytes of each row from byte `at` hold four codes of two bits per byte: columns 4 · line
// …, and the next three 32 columns further on each.
template <typename Out>
inline void store_two_bits(const uint8_t* tile, int at, int line, Out& out) {
  const Bytes mask = broadcast_lane(0x03030303);
  Bytes packed[4];
  load_lines(tile, at, packed);
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_line(line + k, packed[k] & mask, out);
    store_line(line + k + 8, shift_right<2>(packed[k]) & mask, out);
    store_line(line + k + 16, shift_right<4>(packed[k]) & mask, out);
    store_line(line + k + 24, shift_right<6>(packed[k]) & mask, out);
  }
}

// The bytes of each lane, less `offset`, times d: scales (or minimums) of four groups.
inline void store_groups(Bytes factors, float offset, Floats d, float (*out)[kTileRows]) {
  const Floats zero = broadcast(offset);
  store(out[0], d * (byte_to_floats<0>(factors) - zero));
  store(out[1], d * (byte_to_floats<1>(factors) - zero));
  store(out[2], d * (byte_to_floats<2>(factors) - zero));
  store(out[3], d * (byte_to_floats<3>(factors) - zero));
}

// One scale for all of the 256 columns.
template <typename Out>
inline void repeat_scale(Floats d, Out& out) {
  TRIT_UNROLL
  for (int g = 0; g < 8; ++g) store(out.scales[g], d);
}

}  // namespace trit::TRIT_ISA
