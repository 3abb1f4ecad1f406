// The formats without a grid: f32, f16, bf16.
#pragma once

#include "quantizers/rtn_flat.h"

namespace trit::TRIT_ISA::rtn {

inline void copy_floats(const Rows& rows) {
  std::memcpy(rows.out, rows.weights, sizeof(float) * static_cast<size_t>(rows.blocks));
}

inline void round_to_halves(const Rows& rows) {
  for (int64_t i = 0; i < rows.blocks; ++i) {
    const uint16_t half = float_to_half(rows.weights[i]);
    std::memcpy(rows.out + 2 * i, &half, sizeof half);
  }
}

// To nearest even; a NaN stays a NaN.
inline void round_to_bfloats(const Rows& rows) {
  for (int64_t i = 0; i < rows.blocks; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(rows.weights[i]);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = nan ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    const uint16_t top = static_cast<uint16_t>(rounded >> 16);
    std::memcpy(rows.out + 2 * i, &top, sizeof top);
  }
}

}  // namespace trit::TRIT_ISA::rtn
