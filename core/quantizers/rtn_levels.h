// The sixteen uneven levels of iq4_nl and iq4_xs as a grid for the searches.
#pragma once

#include "formats/_iq4_levels.h"
#include "quantizers/rtn_scale.h"

namespace trit::TRIT_ISA::rtn {

struct Levels {
  float values[16];
  static constexpr float kSmallest = 0.0f;  // no level is zero, so that only a scale of zero is
  float middles[16];                        // middles[i] lies between levels i − 1 and i

  // Index of the nearest level: a binary search over the middles.
  Floats index(Floats t) const {
    Floats at = zeros();
    for (float half = 8.0f; half >= 1.0f; half *= 0.5f) {
      const Floats next = at + broadcast(half);
      at = select_less(t, lookup(middles, round_to_ints(next)), at, next);
    }
    return at;
  }
  Floats snap(Floats t) const { return lookup(values, round_to_ints(index(t))); }
  Floats code(Floats t, float) const { return index(t); }
  Floats point(Floats code, float) const { return lookup(values, round_to_ints(code)); }
};

inline Levels make_levels() {
  Levels levels;
  for (int i = 0; i < 16; ++i) levels.values[i] = static_cast<float>(kIq4Levels[i]);
  levels.middles[0] = levels.values[0];
  for (int i = 1; i < 16; ++i) {
    levels.middles[i] = 0.5f * (levels.values[i - 1] + levels.values[i]);
  }
  return levels;
}

}  // namespace trit::TRIT_ISA::rtn
