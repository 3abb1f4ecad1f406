// Formats with one scale per block: q4_0 q5_0 q8_0 iq4_nl, and q4_1 q5_1 with an offset; tq1_0 tq2_0.
#pragma once

#include "quantizers/rtn_affine.h"
#include "quantizers/rtn_levels.h"
#include "quantizers/rtn_scale.h"

namespace trit::TRIT_ISA::rtn {

// One call's rows, as the encoders below take them.
struct Rows {
  const Format& format;
  const float* weights;
  const float* importance; // or null
  int64_t columns;
  int64_t blocks; // of all rows
  uint8_t* out;
};

// Gathers sixteen blocks after sixteen, lets `solve` fill codes and scales, and writes them.
template <class Solve>
inline void each_sixteen(const Rows& rows, Solve solve) {
  Lanes lanes;
  const int n = rows.format.block_weights;
  for (int64_t first = 0; first < rows.blocks; first += kLanes) {
    const int64_t left = rows.blocks - first;
    const int count = left < kLanes ? static_cast<int>(left) : kLanes;
    gather(rows.weights, rows.importance, rows.columns, first, n, count, lanes);
    solve(lanes);
    scatter(rows.format, count, lanes, rows.out + first * rows.format.block_bytes);
  }
}

inline void set_single_scale(Lanes& lanes, const uint16_t* d, const uint16_t* dmin) {
  for (int lane = 0; lane < kLanes; ++lane) {
    Block& block = lanes.blocks[lane];
    block.sub_scale[0] = block.sub_min[0] = 1;
    block.d = d[lane];
    block.dmin = dmin == nullptr ? 0 : dmin[lane];
  }
}

template <class Grid>
inline void encode_scaled(const Rows& rows, const Grid& grid, const Samples& samples, float offset) {
  const int n = rows.format.block_weights;
  each_sixteen(rows, [&](Lanes& lanes) {
    uint16_t d[kLanes];
    Floats scale = find_scale(grid, samples, lanes.x, lanes.w, n);
    scale = round_to_half(lanes, scale, d);
    const Floats inverse_scale = inverse(scale);
    for (int i = 0; i < n; ++i) {
      store(lanes.codes[i], grid.code(load(lanes.x[i]) * inverse_scale, offset));
    }
    set_single_scale(lanes, d, nullptr);
  });
}

// The offset is rounded to fp16 first; the scale is fitted to what it left.
inline void encode_affine(const Rows& rows, float levels, const Ends& ends) {
  const int n = rows.format.block_weights;
  const Steps grid = {0.0f, levels};
  each_sixteen(rows, [&](Lanes& lanes) {
    uint16_t d[kLanes], dmin[kLanes];
    const Floats base = load(lanes.x[0]); // differences keep their precision around a large offset
    for (int i = 0; i < n; ++i) store(lanes.x[i], load(lanes.x[i]) - base);
    const AffineGroup group = make_affine_group(lanes.x, lanes.w, n, levels, true);
    const Line line = find_line(group, ends);
    for (int i = 0; i < n; ++i) store(lanes.x[i], load(lanes.x[i]) + base);
    const Floats minimum = zeros() - round_to_half(lanes, zeros() - (base + line.offset), dmin);
    for (int i = 0; i < n; ++i) store(lanes.x[i], load(lanes.x[i]) - minimum);
    Floats scale = refit_scale(grid, lanes.x, lanes.w, n, line.scale);
    scale = round_to_half(lanes, scale, d);
    const Floats inverse_scale = inverse(scale);
    for (int i = 0; i < n; ++i) {
      store(lanes.codes[i], grid.code(load(lanes.x[i]) * inverse_scale, 0.0f));
    }
    set_single_scale(lanes, d, dmin);
  });
}

} // namespace trit::TRIT_ISA::rtn
