// The search for one scale: value = scale · grid point, the scale of either sign.
//
// For fixed codes q the best scale is Σwxq / Σwq², and it leaves the error Σwx² − (Σwxq)² / Σwq².
// The codes jump where a weight crosses the middle between two grid points, so the error is a
// jagged function of the scale: it is sampled around the scale that just covers the largest weight,
// for both signs (no grid here is symmetric), and the best sample is refitted until it rests.
#pragma once

#include "quantizers/rtn_lanes.h"

namespace trit::TRIT_ISA::rtn {

// Grid points are the integers low … high.
struct Steps {
  float low, high;
  static constexpr float kSmallest = 0x1p-24f;  // scale in fp16: a grid with a zero does no harm
  Floats snap(Floats t) const { return clamp(round_even(t), low, high); }
  Floats code(Floats t, float offset) const { return snap(t) + broadcast(offset); }
  Floats point(Floats code, float offset) const { return code - broadcast(offset); }
};

// Multiples of the largest weight's inverse to sample: first + i · step. An uneven importance can
// make it best to clip weights that do not count, so it samples further.
struct Samples {
  float first, step;
  int plain, weighted;  // how many without and with importance
  bool both_signs;      // a symmetric grid gains nothing from the second
  int count(bool has_importance) const { return has_importance ? weighted : plain; }
};

struct Sums {
  Floats xq, qq;  // Σwxq, Σwq²
};

template <class Grid>
inline Sums correlate(const Grid& grid, const Column* x, const Column* w, int n, Floats inverse) {
  Floats xq = zeros(), qq = zeros();
  for (int i = 0; i < n; ++i) {
    const Floats value = load(x[i]);
    const Floats q = grid.snap(value * inverse);
    const Floats wq = load(w[i]) * q;
    xq = xq + wq * value;
    qq = qq + wq * q;
  }
  return {xq, qq};
}

// One step of coordinate descent: codes for the scale, then the scale for the codes.
template <class Grid>
inline Floats refit_scale(const Grid& grid, const Column* x, const Column* w, int n, Floats scale) {
  const Sums sums = correlate(grid, x, w, n, inverse(scale));
  return select_less(zeros(), sums.qq, sums.xq / sums.qq, scale);
}

template <class Grid>
inline Floats find_scale(const Grid& grid, const Samples& samples, int count, const Column* x,
                         const Column* w, int n) {
  const Floats unit = inverse(largest(x, n));
  Sums best = {zeros(), broadcast(1.0f)};
  const int signs = samples.both_signs ? 2 : 1;
  for (int i = 0; i < signs * count; ++i) {
    const float multiple = samples.first + static_cast<float>(i / signs) * samples.step;
    const Floats inverse = unit * broadcast(i % signs == 0 ? multiple : -multiple);
    const Sums sums = correlate(grid, x, w, n, inverse);
    const Floats old_gain = best.xq * best.xq * sums.qq;
    const Floats new_gain = sums.xq * sums.xq * best.qq;
    best.xq = select_less(old_gain, new_gain, sums.xq, best.xq);
    best.qq = select_less(old_gain, new_gain, sums.qq, best.qq);
  }
  Floats scale = best.xq / best.qq;
  for (int i = 0; i < 2; ++i) scale = refit_scale(grid, x, w, n, scale);
  return scale;
}

}  // namespace trit::TRIT_ISA::rtn
