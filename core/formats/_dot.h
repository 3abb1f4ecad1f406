// The dot of sixteen packed rows with one token: a panel whose lines are multiplied as they are
// laid and never stored. Same sums, same order, same bits as the products of ops/matmul.h.
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

// Stands where a Panel stands in the formats' `panel` functions.
template <Grid grid>
struct Dot {
  static constexpr int kLines = grid.group / 4;  // of a group
  const int8_t* x;
  Ints sums[kChunkColumns / grid.group];
  alignas(64) float scales[kChunkColumns / grid.group][kTileRows];
  alignas(64) float mins[kChunkColumns / grid.group][kTileRows];
};

template <Grid grid>
inline void store_line(int line, Bytes codes, Dot<grid>& out) {
  Ints& sum = out.sums[line / Dot<grid>::kLines];
  const int8_t* x = out.x + 4 * line;
  sum = grid.offset == 128 ? dot4_wide(sum, codes, x) : dot4(sum, codes, x);
}

// Adds the product of `columns` columns to sixteen totals. x, scales, starts and sums as
// Activations has them for one token, at the first of the columns.
template <Grid grid, void (*lay)(const TileRows&, int, Dot<grid>&)>
[[gnu::flatten]] void dot_tile(const TileRows& rows, int columns, const int8_t* x,
                               const float* scales, const int32_t* starts, const float* sums,
                               float* totals) {
  constexpr int kGroups = kActivationBlock / grid.group;
  Dot<grid> dot;
  dot.x = x;
  for (int g = 0; g < columns / grid.group; ++g) dot.sums[g] = broadcast_int(starts[g]);
  if (columns == kChunkColumns) {
    lay(rows, kChunkColumns, dot);  // unrolled: the sums stay in registers
  } else {
    lay(rows, columns, dot);
  }
  Floats total = load(totals);
  for (int block = 0; block < columns / kActivationBlock; ++block) {
    const int first = block * kGroups;
    Floats part = to_floats(dot.sums[first]) * load(dot.scales[first]);
    for (int g = first + 1; g < first + kGroups; ++g) {
      part = fma(to_floats(dot.sums[g]), load(dot.scales[g]), part);
    }
    total = fma(part, broadcast(scales[block]), total);
    if constexpr (grid.has_mins) {
      for (int g = first; g < first + kGroups; ++g) {
        total = fnma(load(dot.mins[g]), broadcast(sums[g]), total);
      }
    }
  }
  store(totals, total);
}

// The function above where registers are many enough for it to gain, else null.
template <Grid grid, void (*lay)(const TileRows&, int, Dot<grid>&)>
constexpr auto fused_dot() -> decltype(Format::dot) {
  if constexpr (kFusesDot) {
    return dot_tile<grid, lay>;
  } else {
    return nullptr;
  }
}

}  // namespace trit::TRIT_ISA
