// Runs of bytes of sixteen rows, transposed: how the blocks of 32 weights are read.
//
// Their blocks are 18 to 34 bytes long. Gathering d and the fifth bits apart would cost as much as
// the codes, so the bytes of two blocks come as one run, in which any four bytes at an even offset
// are a lane, or parts of two.
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

// Bytes 4k … 4k + 3 of each row are lane[k]; of an odd pair of bytes at the end the upper half is
// zero.
template <int bytes>
struct Span {
  Bytes lane[(bytes + 3) / 4];
};

template <int bytes>
inline Span<bytes> load_span(const TileRows& rows, int64_t at) {
  static_assert(bytes >= 16 && bytes % 2 == 0);
  constexpr int kWhole = bytes / 16 * 4;  // lanes of whole pieces of sixteen bytes
  Span<bytes> span;
  for (int k = 0; k < kWhole; k += 4) load_rows(rows.row, at + 4 * k, span.lane + k);
  if constexpr (bytes % 16 != 0) {  // the last piece overlaps, so as not to read past the row
    constexpr int kLanes = (bytes + 3) / 4;
    Bytes tail[4];
    load_rows(rows.row, at + bytes - 16, tail);
    if constexpr (bytes % 4 == 0) {
      for (int k = kWhole; k < kLanes; ++k) span.lane[k] = tail[k - kLanes + 4];
    } else {
      for (int k = kWhole; k + 1 < kLanes; ++k) {
        const int j = k - kLanes + 4;
        span.lane[k] = shift_right<16>(tail[j]) | shift_left<16>(tail[j + 1]);
      }
      span.lane[kLanes - 1] = shift_right<16>(tail[3]);
    }
  }
  return span;
}

template <int at, int bytes>
inline Bytes four_bytes(const Span<bytes>& span) {
  static_assert(at % 2 == 0 && at + 4 <= bytes);
  if constexpr (at % 4 == 0) {
    return span.lane[at / 4];
  } else {
    return shift_right<16>(span.lane[at / 4]) | shift_left<16>(span.lane[at / 4 + 1]);
  }
}

template <int at, int bytes>
inline Floats halves(const Span<bytes>& span) {
  const Bytes both = span.lane[at / 4];
  return low_half_to_floats(at % 4 == 0 ? both : shift_right<16>(both));
}

// A minimum, from an offset that is added.
template <int at, int bytes>
inline Floats negated_halves(const Span<bytes>& span) {
  const Bytes both = span.lane[at / 4] ^ broadcast_lane(0x80008000u);
  return low_half_to_floats(at % 4 == 0 ? both : shift_right<16>(both));
}

// Sixteen bytes from byte `at`: the low nibbles are four lines, the high ones the next four.
template <int at, int bytes, typename Out>
inline void store_nibbles(const Span<bytes>& span, int line, Out& out) {
  const Bytes packed[4] = {four_bytes<at>(span), four_bytes<at + 4>(span), four_bytes<at + 8>(span),
                           four_bytes<at + 12>(span)};
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_line(line + k, low_nibbles(packed[k]), out);
    store_line(line + k + 4, high_nibbles(packed[k]), out);
  }
}

// The 32 codes of a q5_0 or q5_1 block: fifth bits from byte `bits`, nibbles from byte `at`.
template <int bits, int at, int bytes, typename Out>
inline void store_five_bits(const Span<bytes>& span, int line, Out& out) {
  const Bytes fifth = four_bytes<bits>(span);
  const Bytes a = four_bytes<at>(span);
  const Bytes b = four_bytes<at + 4>(span);
  const Bytes c = four_bytes<at + 8>(span);
  const Bytes d = four_bytes<at + 12>(span);
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
