// Blocks of 256 whose groups have integer scales under one fp16 scale, no minimums: q3_k q6_k iq4_xs.
//
// value = d · s_g · grid point. Each group first gets the scale it would like; d is the one that the largest
// needs. Then, in turns: every group tries the integers around its wish with freshly rounded codes and keeps
// the best, and d is refitted to all codes of the block at once.
#pragma once

#include "quantizers/rtn_flat.h"

namespace trit::TRIT_ISA::rtn {



struct SuperShape {
  int groups, group;      // groups per block, weights per group
  float low, high;        // integer scales
  float code_offset;      // of the format's codes
  Samples samples;
};

// The integer scales of one group around `wish`, judged with their own codes.
struct Choice {
  Floats scale; // the integer
  Floats error; // up to Σwx²
  Sums sums;
};

template <class Grid>
inline Choice choose_scale(const Grid& grid, const SuperShape& shape, const Column* x,
                           const Column* w, Floats d, Floats wish) {
  const Floats nearest = round_even(wish);
  Choice best = {zeros(), zeros(), {zeros(), zeros()}};
  for (int step = -1; step <= 1; ++step) {
    const Floats s =
        clamp(nearest + broadcast(static_cast<float>(step)), shape.low, shape.high);
    const Floats scale = d * s;
    const Sums sums = correlate(grid, x, w, shape.group, inverse(scale));
    const Floats error = scale * (scale * sums.qq - (sums.xq + sums.xq));
    best.scale = select_less(error, best.error, s, best.scale);
    best.sums.xq = select_less(error, best.error, sums.xq, best.sums.xq);
    best.sums.qq = select_less(error, best.error, sums.qq, best.sums.qq);
    best.error = select_less(error, best.error, error, best.error);
  }
  return best;
}

// The block scale with which the group scale of largest magnitude becomes the integer `low`.
inline Floats covering_scale(const Floats* wishes, int groups, float low) {
  Floats most = zeros(), chosen = zeros();
  for (int g = 0; g < groups; ++g) {
    const Floats magnitude = abs(wishes[g]);
    chosen = select_less(most, magnitude, wishes[g], chosen);
    most = max(magnitude, most);
  }
  return chosen * broadcast(1.0f / low);
}

template <class Grid>
inline void solve_super(const Grid& grid, const SuperShape& shape, Lanes& lanes) {
  Floats wishes[kMaxBlockGroups], scales[kMaxBlockGroups];
  uint16_t bits[kLanes];
  for (int g = 0; g < shape.groups; ++g) {
    const int first = g * shape.group;
    wishes[g] = find_scale(grid, shape.samples, lanes.x + first, lanes.w + first, shape.group);
  }
  Floats d = round_to_half(lanes, covering_scale(wishes, shape.groups, shape.low), bits);
  for (int turn = 0; turn < 2; ++turn) {
    const Floats inverse_d = inverse(d);
    Sums total = {zeros(), zeros()};
    for (int g = 0; g < shape.groups; ++g) {
      const int first = g * shape.group;
      const Choice best = choose_scale(grid, shape, lanes.x + first, lanes.w + first, d,
                                       wishes[g] * inverse_d);
      scales[g] = best.scale;
      total.xq = total.xq + best.scale * best.sums.xq;
      total.qq = total.qq + best.scale * best.scale * best.sums.qq;
    }
    d = round_to_half(lanes, select_less(zeros(), total.qq, total.xq / total.qq, d), bits);
  }
  for (int g = 0; g < shape.groups; ++g) {
    const Floats inverse_scale = inverse(d * scales[g]);
    for (int i = g * shape.group; i < (g + 1) * shape.group; ++i) {
      store(lanes.codes[i], grid.code(load(lanes.x[i]) * inverse_scale, shape.code_offset));
    }
  }
  for (int g = 0; g < shape.groups; ++g) {
    alignas(64) float integers[kLanes];
    store(integers, scales[g]);
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes.blocks[lane].sub_scale[g] = static_cast<int16_t>(integers[lane]);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes.blocks[lane].d = bits[lane];
    lanes.blocks[lane].dmin = 0;
  }
}

template <class Grid>
inline void encode_super(const Rows& rows, const Grid& grid, const SuperShape& shape) {
  each_sixteen(rows, [&](Lanes& lanes) { solve_super(grid, shape, lanes); });
}

} // namespace trit::TRIT_ISA::rtn
