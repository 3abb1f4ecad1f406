// The search for a scale and an offset: value = scale · q + offset, q in 0 … levels, scale ≥ 0.
//
// Sampled over where the lowest and the highest code lie, each inside or outside the extremes of
// the group; every sample's codes get their least-squares scale and offset, and the best sample is
// refitted.
#pragma once

#include "quantizers/rtn_lanes.h"

namespace trit::TRIT_ISA::rtn {

struct Line {
  Floats scale, offset;
};

// How far to move each end inwards, in parts of the range: first + i · step. See Samples.
struct Ends {
  float first, step;
  int plain, weighted;  // how many per end, without and with importance
  int count(bool has_importance) const { return has_importance ? weighted : plain; }
};

// What every sample of one group shares.
struct AffineGroup {
  const Column* x;
  const Column* w;
  int n;
  float levels;
  bool signed_offset;  // else offset ≤ 0, which is all that a K-quant can store
  Floats sum_w, sum_x;
};

struct AffineFit {
  Line line;
  Floats gain;  // Σw · (error explained by codes), up to a constant of the group
};

inline Floats affine_code(Floats x, Floats offset, Floats inverse, float levels) {
  return clamp(round_even((x - offset) * inverse), 0.0f, levels);
}

inline AffineGroup make_affine_group(const Column* x, const Column* w, int n, float levels,
                                     bool signed_offset) {
  Floats sum_w = zeros(), sum_x = zeros();
  for (int i = 0; i < n; ++i) {
    sum_w = sum_w + load(w[i]);
    sum_x = sum_x + load(w[i]) * load(x[i]);
  }
  return {x, w, n, levels, signed_offset, sum_w, sum_x};
}

// The least-squares line through the codes that `offset` and `inverse` = 1 / scale give.
inline AffineFit fit_line(const AffineGroup& g, Floats offset, Floats inverse) {
  Floats q1 = zeros(), q2 = zeros(), xq = zeros();
  for (int i = 0; i < g.n; ++i) {
    const Floats value = load(g.x[i]);
    const Floats q = affine_code(value, offset, inverse, g.levels);
    const Floats wq = load(g.w[i]) * q;
    q1 = q1 + wq;
    q2 = q2 + wq * q;
    xq = xq + wq * value;
  }
  const Floats slope = g.sum_w * xq - g.sum_x * q1;
  const Floats product = g.sum_w * q2;
  const Floats determinant = product - q1 * q1;  // nothing but rounding where all codes are one
  const Floats doubt = product * broadcast(1e-5f);
  const Floats scale = select_less(doubt, determinant, slope / determinant, zeros());
  AffineFit fit = {{scale, (g.sum_x - scale * q1) / g.sum_w}, scale * slope};
  if (!g.signed_offset) {
    const Floats through_zero = xq / q2;
    const Floats gain = through_zero * xq * g.sum_w - g.sum_x * g.sum_x;
    const Floats excess = select_less(doubt, determinant, fit.line.offset, broadcast(1.0f));
    fit.line.scale = select_less(zeros(), excess, through_zero, fit.line.scale);
    fit.gain = select_less(zeros(), excess, gain, fit.gain);
    fit.line.offset = select_less(zeros(), excess, zeros(), fit.line.offset);
  }
  return fit;
}

inline void keep_better(AffineFit& best, const AffineFit& other) {
  best.line.scale = select_less(best.gain, other.gain, other.line.scale, best.line.scale);
  best.line.offset = select_less(best.gain, other.gain, other.line.offset, best.line.offset);
  best.gain = select_less(best.gain, other.gain, other.gain, best.gain);
}

// The same values with the least scale and offset. A group may be best served by few codes (3 and 2
// of a far offset, say, where two weights have all the importance); a neighbour of the same block,
// whose integers share d and dmin, would pay for such a line with its own precision.
inline Line tighten(const AffineGroup& g, const Line& line, Floats least, Floats most) {
  const Floats inverse_scale = inverse(line.scale);
  const Floats first = affine_code(least, line.offset, inverse_scale, g.levels);
  const Floats last = affine_code(most, line.offset, inverse_scale, g.levels);
  const Floats moved = line.offset + line.scale * first;
  const Floats room = broadcast(g.levels) * inverse(last - first);
  const Floats whole = round_even(room - broadcast(0.499f));  // down, but for rounding errors
  return {line.scale / max(whole, broadcast(1.0f)),
          select_less(zeros(), moved, line.offset, moved)};
}

inline Line find_line(const AffineGroup& g, const Ends& ends, int count) {
  Floats low = load(g.x[0]), high = low;
  for (int i = 1; i < g.n; ++i) {
    low = min(load(g.x[i]), low);
    high = max(load(g.x[i]), high);
  }
  const Floats least = low;
  if (!g.signed_offset) low = min(low, zeros());
  const Floats range = high - low;
  const Floats unit = inverse(range) * broadcast(g.levels);
  AffineFit best = {{range * broadcast(1.0f / g.levels), low}, broadcast(-1e30f)};
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < count; ++j) {
      const float inner_low = ends.first + static_cast<float>(i) * ends.step;
      const float inner_high = ends.first + static_cast<float>(j) * ends.step;
      const float span = 1.0f - inner_low - inner_high;
      if (span < 0.1f) continue;  // the ends have met
      const Floats inverse = unit * broadcast(1.0f / span);
      keep_better(best, fit_line(g, low + range * broadcast(inner_low), inverse));
    }
  }
  for (int i = 0; i < 2; ++i) {
    keep_better(best, fit_line(g, best.line.offset, inverse(best.line.scale)));
  }
  return g.signed_offset ? best.line : tighten(g, best.line, least, high);
}

}  // namespace trit::TRIT_ISA::rtn
