// Formats with one scale per block: q4_0 q5_0 q8_0 iq4_nl, and q4_1 q5_1 with an offset; tq1_0
// tq2_0.
#pragma once

#include "quantizers/rtn_affine.h"
#include "quantizers/rtn_scale.h"

namespace trit::TRIT_ISA::rtn {

// One call's rows, as the encoders below take them.
struct Rows {
  const Format& format;
  const float* weights;
  const float* importance;  // or null
  int64_t columns;
  int64_t blocks;  // of all rows
  uint8_t* out;
};

// Gathers sixteen blocks after sixteen, lets `solve` fill codes and scales, and writes them.
template <class Solve>
inline void each_sixteen(const Rows& rows, Solve solve) {
  BlockLanes lanes;
  const int n = rows.format.block_weights;
  for (int64_t first = 0; first < rows.blocks; first += kLanes) {
    const int64_t left = rows.blocks - first;
    const int count = left < kLanes ? static_cast<int>(left) : kLanes;
    gather(rows.weights, rows.importance, rows.columns, first, n, count, lanes);
    solve(lanes);
    scatter(rows.format, count, lanes, rows.out + first * rows.format.block_bytes);
  }
}

inline void store_integers(BlockLanes& lanes, int group, Floats scale, Floats minimum) {
  alignas(64) float s[kLanes], m[kLanes];
  store(s, scale);
  store(m, minimum);
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes.blocks[lane].sub_scale[group] = static_cast<int16_t>(s[lane]);
    lanes.blocks[lane].sub_min[group] = static_cast<int16_t>(m[lane]);
  }
}

inline void set_block_scales(BlockLanes& lanes, const uint16_t* d, const uint16_t* dmin) {
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes.blocks[lane].d = d[lane];
    lanes.blocks[lane].dmin = dmin == nullptr ? 0 : dmin[lane];
  }
}

inline void set_single_scale(BlockLanes& lanes, const uint16_t* d, const uint16_t* dmin) {
  store_integers(lanes, 0, broadcast(1.0f), broadcast(1.0f));
  set_block_scales(lanes, d, dmin);
}

// Codes of every weight for one scale per group, and the format's name for them.
template <class Grid>
inline void store_codes(const Grid& grid, Floats scale, float code_offset, int n, const Column* x,
                        Column* codes) {
  const Floats inverse_scale = inverse(scale);
  for (int i = 0; i < n; ++i) {
    store(codes[i], grid.code(load(x[i]) * inverse_scale, code_offset));
  }
}

template <class Grid>
inline void encode_scaled(const Rows& rows, const Grid& grid, const Samples& samples,
                          float code_offset) {
  const int n = rows.format.block_weights;
  const int count = samples.count(rows.importance != nullptr);
  each_sixteen(rows, [&](BlockLanes& lanes) {
    uint16_t d[kLanes];
    const Floats wish = find_scale(grid, samples, count, lanes.x, lanes.w, n);
    const Floats scale = round_to_half(lanes, wish, d, Grid::kSmallest);
    store_codes(grid, scale, code_offset, n, lanes.x, lanes.codes);
    set_single_scale(lanes, d, nullptr);
  });
}

// The offset is rounded to fp16 first; the scale is fitted to what it left. Differences to the
// block's first weight keep their precision around an offset much larger than they are.
inline void encode_affine(const Rows& rows, float levels, const Ends& ends) {
  constexpr int n = 32;
  const Steps grid = {0.0f, levels};
  const int count = ends.count(rows.importance != nullptr);
  each_sixteen(rows, [&](BlockLanes& lanes) {
    alignas(64) Column from_first[n], from_offset[n];
    uint16_t d[kLanes], dmin[kLanes];
    const Floats first = load(lanes.x[0]);
    for (int i = 0; i < n; ++i) store(from_first[i], load(lanes.x[i]) - first);
    const AffineGroup group = make_affine_group(from_first, lanes.w, n, levels, true);
    const Line wish = find_line(group, ends, count);
    const Floats minimum = round_offset(lanes, zeros() - (first + wish.offset), dmin);
    for (int i = 0; i < n; ++i) store(from_offset[i], load(lanes.x[i]) + minimum);
    const Floats fitted = refit_scale(grid, from_offset, lanes.w, n, wish.scale);
    const Floats scale = round_scale(lanes, fitted, d);
    store_codes(grid, scale, 0.0f, n, from_offset, lanes.codes);
    set_single_scale(lanes, d, dmin);
  });
}

}  // namespace trit::TRIT_ISA::rtn
