// Blocks of 256 whose groups have integer scales and minimums: q2_k q4_k q5_k.
//
// value = d · s_g · q − dmin · m_g. As rtn_super.h, with pairs: every group tries the integer pairs
// around its wish with freshly rounded codes, and d and dmin are refitted together by least
// squares.
#pragma once

#include "quantizers/rtn_flat.h"

namespace trit::TRIT_ISA::rtn {

struct SuperAffineShape {
  int groups, group;
  float levels;   // largest code
  float highest;  // integer scale or minimum
  Ends ends;
};

// Both block scales.
struct Pair {
  Floats d, dmin;
};

// With u = s·q and v = m fixed, the normal equations of Σw(x − d·u + dmin·v)².
struct Normal {
  Floats uu, uv, vv, xu, xv;
};

inline Pair round_pair(const BlockLanes& lanes, const Pair& pair, uint16_t* d, uint16_t* dmin) {
  return {round_scale(lanes, pair.d, d), round_offset(lanes, pair.dmin, dmin)};
}

struct PairChoice {
  Floats scale, minimum;  // integers
  Floats error;           // up to Σwx²
  Floats q1, q2, xq;      // Σwq, Σwq², Σwxq
};

inline PairChoice judge_pair(const AffineGroup& g, const Pair& block, Floats s, Floats m) {
  const Floats scale = block.d * s;
  const Floats minimum = block.dmin * m;
  const Floats offset = zeros() - minimum;
  const Floats inverse_scale = inverse(scale);
  Floats q1 = zeros(), q2 = zeros(), xq = zeros();
  for (int i = 0; i < g.n; ++i) {
    const Floats value = load(g.x[i]);
    const Floats q = affine_code(value, offset, inverse_scale, g.levels);
    const Floats wq = load(g.w[i]) * q;
    q1 = q1 + wq;
    q2 = q2 + wq * q;
    xq = xq + wq * value;
  }
  // Σw(aq − b)² − 2Σwx(aq − b)
  const Floats two = broadcast(2.0f);
  const Floats slope = scale * (scale * q2 - two * (minimum * q1 + xq));
  const Floats level = minimum * (minimum * g.sum_w + two * g.sum_x);
  return {s, m, slope + level, q1, q2, xq};
}

inline void keep_better(PairChoice& best, const PairChoice& other) {
  const Floats old_error = best.error;
  best.scale = select_less(other.error, old_error, other.scale, best.scale);
  best.minimum = select_less(other.error, old_error, other.minimum, best.minimum);
  best.q1 = select_less(other.error, old_error, other.q1, best.q1);
  best.q2 = select_less(other.error, old_error, other.q2, best.q2);
  best.xq = select_less(other.error, old_error, other.xq, best.xq);
  best.error = select_less(other.error, old_error, other.error, best.error);
}

// The integer pairs around the wish.
inline PairChoice choose_pair(const AffineGroup& g, const Pair& block, const Line& wish,
                              float highest) {
  const Floats s0 = round_even(wish.scale * inverse(block.d));
  const Floats m0 = round_even((zeros() - wish.offset) * inverse(block.dmin));
  PairChoice best = {};
  best.error = broadcast(3e38f);
  for (int i = -1; i <= 1; ++i) {
    const Floats s = clamp(s0 + broadcast(static_cast<float>(i)), 0.0f, highest);
    for (int j = -1; j <= 1; ++j) {
      const Floats m = clamp(m0 + broadcast(static_cast<float>(j)), 0.0f, highest);
      keep_better(best, judge_pair(g, block, s, m));
    }
  }
  return best;
}

inline void accumulate(Normal& sums, const AffineGroup& g, const PairChoice& choice) {
  sums.uu = sums.uu + choice.scale * choice.scale * choice.q2;
  sums.uv = sums.uv + choice.scale * choice.minimum * choice.q1;
  sums.vv = sums.vv + choice.minimum * choice.minimum * g.sum_w;
  sums.xu = sums.xu + choice.scale * choice.xq;
  sums.xv = sums.xv + choice.minimum * g.sum_x;
}

// The pair that solves the normal equations; the old one where they are singular or ask for a pair
// that the integers, which are not negative, were not chosen for.
inline Pair refit_pair(const Normal& n, const Pair& old) {
  const Floats product = n.uu * n.vv;
  const Floats determinant = product - n.uv * n.uv;
  Floats d = (n.xu * n.vv - n.uv * n.xv) / determinant;
  Floats dmin = (n.uv * n.xu - n.uu * n.xv) / determinant;
  Floats sound = determinant - product * broadcast(1e-6f);
  sound = select_less(zeros(), d, sound, zeros());
  sound = select_less(dmin, zeros(), zeros(), sound);
  d = select_less(zeros(), sound, d, old.d);
  dmin = select_less(zeros(), sound, dmin, old.dmin);
  const Floats alone = select_less(zeros(), n.uu, n.xu / n.uu, old.d);
  return {select_less(zeros(), n.vv, d, alone), dmin};  // vv = 0: no group has a minimum
}

// Chooses every group's integers near `wishes`, which become what was chosen; returns the refitted
// pair.
inline Pair improve(const SuperAffineShape& shape, const AffineGroup* groups, const Pair& block,
                    Line* wishes, PairChoice* choices) {
  Normal sums = {zeros(), zeros(), zeros(), zeros(), zeros()};
  for (int g = 0; g < shape.groups; ++g) {
    choices[g] = choose_pair(groups[g], block, wishes[g], shape.highest);
    wishes[g] = {block.d * choices[g].scale, zeros() - block.dmin * choices[g].minimum};
    accumulate(sums, groups[g], choices[g]);
  }
  return refit_pair(sums, block);
}

inline void store_affine_codes(const SuperAffineShape& shape, const Pair& block,
                               const PairChoice* choices, BlockLanes& lanes) {
  for (int g = 0; g < shape.groups; ++g) {
    const Floats inverse_scale = inverse(block.d * choices[g].scale);
    const Floats offset = zeros() - block.dmin * choices[g].minimum;
    for (int i = g * shape.group; i < (g + 1) * shape.group; ++i) {
      store(lanes.codes[i], affine_code(load(lanes.x[i]), offset, inverse_scale, shape.levels));
    }
    store_integers(lanes, g, choices[g].scale, choices[g].minimum);
  }
}

inline void solve_super_affine(const SuperAffineShape& shape, int count, BlockLanes& lanes) {
  AffineGroup groups[kMaxBlockGroups];
  Line wishes[kMaxBlockGroups];
  PairChoice choices[kMaxBlockGroups];
  uint16_t d_bits[kLanes], dmin_bits[kLanes];
  Floats most_scale = zeros(), most_minimum = zeros();
  for (int g = 0; g < shape.groups; ++g) {
    const int first = g * shape.group;
    groups[g] =
        make_affine_group(lanes.x + first, lanes.w + first, shape.group, shape.levels, false);
    wishes[g] = find_line(groups[g], shape.ends, count);
    most_scale = max(wishes[g].scale, most_scale);
    most_minimum = max(zeros() - wishes[g].offset, most_minimum);
  }
  const Floats unit = broadcast(1.0f / shape.highest);
  Pair block = {most_scale * unit, most_minimum * unit};
  block = round_pair(lanes, block, d_bits, dmin_bits);
  for (int turn = 0; turn < kTurns; ++turn) {
    block = improve(shape, groups, block, wishes, choices);
    block = round_pair(lanes, block, d_bits, dmin_bits);
  }
  store_affine_codes(shape, block, choices, lanes);
  set_block_scales(lanes, d_bits, dmin_bits);
}

inline void encode_super_affine(const Rows& rows, const SuperAffineShape& shape) {
  const int count = shape.ends.count(rows.importance != nullptr);
  each_sixteen(rows, [&](BlockLanes& lanes) { solve_super_affine(shape, count, lanes); });
}

}  // namespace trit::TRIT_ISA::rtn
