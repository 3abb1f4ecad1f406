// mxfp4: floats of four bits under a power of two.
#pragma once

#include "quantizers/rtn_flat.h"

namespace trit::TRIT_ISA::rtn {

// The nearest of 0 1 2 3 4 6 8 12: steps of one up to four, of two up to eight, then of four.
inline Floats snap_fp4(Floats magnitude) {
  const Floats one = broadcast(1.0f), two = broadcast(2.0f), four = broadcast(4.0f);
  const Floats eight = broadcast(8.0f);
  const Floats step = select_less(magnitude, four, one, select_less(magnitude, eight, two, four));
  return clamp(round_even(magnitude / step) * step, 0.0f, 12.0f);
}

inline Floats fp4_error(const BlockLanes& lanes, float inverse_scale) {
  const Floats inverse = broadcast(inverse_scale);
  Floats error = zeros();
  for (int i = 0; i < 32; ++i) {
    const Floats magnitude = abs(load(lanes.x[i])) * inverse;
    const Floats off = magnitude - snap_fp4(magnitude);
    error = error + load(lanes.w[i]) * (off * off);
  }
  const Floats scale = broadcast(1.0f / inverse_scale);
  return error * scale * scale;
}

inline void store_fp4_codes(BlockLanes& lanes, Floats inverse_scale) {
  const Floats five = broadcast(5.0f), seven = broadcast(7.0f);
  for (int i = 0; i < 32; ++i) {
    const Floats value = load(lanes.x[i]);
    const Floats q = snap_fp4(abs(value) * inverse_scale);
    const Floats last = min(round_even(q * broadcast(0.25f)) + broadcast(4.0f), seven);
    const Floats index = select_less(q, five, q, select_less(q, seven, five, last));
    const Floats minus = select_less(value, zeros(), broadcast(8.0f), zeros());
    store(lanes.codes[i], index + select_less(zeros(), q, minus, zeros()));
  }
}

// The largest weight lies in [1, 2) and the largest level is 12: beyond a quarter there is nothing
// to gain. An uneven importance may clip it.
inline void encode_mxfp4(const Rows& rows) {
  const int count = rows.importance == nullptr ? 3 : 5;
  each_sixteen(rows, [&](BlockLanes& lanes) {
    Floats best = broadcast(3e38f), inverse_scale = broadcast(4.0f);
    for (int i = 0; i < count; ++i) {
      const float tried = static_cast<float>(4 << i);
      const Floats error = fp4_error(lanes, tried);
      inverse_scale = select_less(error, best, broadcast(tried), inverse_scale);
      best = min(error, best);
    }
    store_fp4_codes(lanes, inverse_scale);
    alignas(64) float inverses[kLanes];
    store(inverses, inverse_scale);
    for (int lane = 0; lane < kLanes; ++lane) {
      const float scale = lanes.grow[lane] / inverses[lane];  // a power of two, or zero
      const uint32_t exponent = std::bit_cast<uint32_t>(scale) >> 23;
      lanes.blocks[lane].d = static_cast<uint16_t>(exponent == 0 ? 0 : exponent + 1);  // of 2^−128
    }
  });
}

}  // namespace trit::TRIT_ISA::rtn
