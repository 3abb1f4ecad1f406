// The twelve bytes in which q4_k and q5_k keep eight scales and eight mins of six bits.
//
// byte      bits 7 6   bits 5 … 0
// 0 … 3     sᵢ₊₄ high  scale i          i = 0 … 3
// 4 … 7     mᵢ₊₄ high  min i
// byte      bits 7 … 4   bits 3 … 0
// 8 … 11    mᵢ₊₄ low     sᵢ₊₄ low
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

inline void unpack_scales(const uint8_t* in, int16_t* scales, int16_t* mins) {
  for (int i = 0; i < 4; ++i) {
    scales[i] = in[i] & 63;
    mins[i] = in[i + 4] & 63;
    scales[i + 4] = static_cast<int16_t>((in[i + 8] & 15) | ((in[i] >> 6) << 4));
    mins[i + 4] = static_cast<int16_t>((in[i + 8] >> 4) | ((in[i + 4] >> 6) << 4));
  }
}

inline void pack_scales(const int16_t* scales, const int16_t* mins, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    out[i] = static_cast<uint8_t>((scales[i] & 63) | ((scales[i + 4] >> 4) << 6));
    out[i + 4] = static_cast<uint8_t>((mins[i] & 63) | ((mins[i + 4] >> 4) << 6));
    out[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | ((mins[i + 4] & 15) << 4));
  }
}

// Scales and minimums of a panel from the first sixteen bytes of its rows: d, dmin, the twelve
// bytes.
template <typename Out>
inline void store_scales(const Bytes header[4], Out& out) {
  const Bytes six_bits = broadcast_lane(0x3f3f3f3f);
  const Bytes high = broadcast_lane(0x30303030);
  const Floats d = low_half_to_floats(header[0]);
  const Floats dmin = low_half_to_floats(shift_right<16>(header[0]));
  store_groups(header[1] & six_bits, 0.0f, d, out.scales);
  store_groups(header[2] & six_bits, 0.0f, dmin, out.mins);
  store_groups(low_nibbles(header[3]) | (shift_right<2>(header[1]) & high), 0.0f, d,
               out.scales + 4);
  store_groups(high_nibbles(header[3]) | (shift_right<2>(header[2]) & high), 0.0f, dmin,
               out.mins + 4);
}

}  // namespace trit::TRIT_ISA
