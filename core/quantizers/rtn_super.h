// Blocks of 256 whose groups have integer scales under one fp16 scale, no minimums: q3_k q6_k
// iq4_xs.
//
// value = d · s_g · grid point. Each group first gets the scale it would like; d is the one that
// the largest needs. Then, in turns: every group tries the integers around its wish with freshly
// rounded codes and keeps the best, and d is refitted to all codes of the block at once.
#pragma once

#include "quantizers/rtn_flat.h"

namespace trit::TRIT_ISA::rtn {

struct SuperShape {
  int groups, group;  // groups per block, weights per group
  float low, high;    // integer scales
  float code_offset;  // of the format's codes
  Samples samples;
};

// The integer scales of one group around `wish`, judged with their own codes.
struct Choice {
  Floats scale;  // the integer
  Floats error;  // up to Σwx²
  Sums sums;
};

template <class Grid>
inline Choice choose_scale(const Grid& grid, const SuperShape& shape, const Column* x,
                           const Column* w, Floats d, Floats wish) {
  const Floats nearest = round_even(wish);
  Choice best = {zeros(), zeros(), {zeros(), zeros()}};
  for (int step = -1; step <= 1; ++step) {
    const Floats s = clamp(nearest + broadcast(static_cast<float>(step)), shape.low, shape.high);
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

// Chooses every group's integer near `wishes`, which become what was chosen; returns the refitted
// d.
template <class Grid>
inline Floats improve(const Grid& grid, const SuperShape& shape, const BlockLanes& lanes, Floats d,
                      Floats* wishes, Floats* integers) {
  const Floats inverse_d = inverse(d);
  Sums total = {zeros(), zeros()};
  for (int g = 0; g < shape.groups; ++g) {
    const int first = g * shape.group;
    const Choice best =
        choose_scale(grid, shape, lanes.x + first, lanes.w + first, d, wishes[g] * inverse_d);
    integers[g] = best.scale;
    wishes[g] = d * best.scale;
    total.xq = total.xq + best.scale * best.sums.xq;
    total.qq = total.qq + best.scale * best.scale * best.sums.qq;
  }
  return select_less(zeros(), total.qq, total.xq / total.qq, d);
}

template <class Grid>
inline void solve_super(const Grid& grid, const SuperShape& shape, int count, BlockLanes& lanes) {
  Floats wishes[kMaxBlockGroups], integers[kMaxBlockGroups];
  uint16_t bits[kLanes];
  for (int g = 0; g < shape.groups; ++g) {
    const int first = g * shape.group;
    wishes[g] =
        find_scale(grid, shape.samples, count, lanes.x + first, lanes.w + first, shape.group);
  }
  Floats d = round_scale(lanes, covering_scale(wishes, shape.groups, shape.low), bits);
  for (int turn = 0; turn < kTurns; ++turn) {
    d = round_scale(lanes, improve(grid, shape, lanes, d, wishes, integers), bits);
  }
  for (int g = 0; g < shape.groups; ++g) {
    const int first = g * shape.group;
    store_codes(grid, d * integers[g], shape.code_offset, shape.group, lanes.x + first,
                lanes.codes + first);
    store_integers(lanes, g, integers[g], zeros());
  }
  set_block_scales(lanes, bits, nullptr);
}

template <class Grid>
inline void encode_super(const Rows& rows, const Grid& grid, const SuperShape& shape) {
  const int count = shape.samples.count(rows.importance != nullptr);
  each_sixteen(rows, [&](BlockLanes& lanes) { solve_super(grid, shape, count, lanes); });
}

}  // namespace trit::TRIT_ISA::rtn
