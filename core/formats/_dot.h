// The dot of a tile with a few tokens: a panel whose lines are multiplied as they are laid and
// never stored. Same sums, same order, same bits as the products of ops/matmul.h.
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

// Stands where a Panel stands in the formats' `panel` functions.
template <Grid grid, int tokens>
struct Dot {
  static constexpr int kGroups = kChunkColumns / grid.group;
  static constexpr int kLines = grid.group / 4;  // of a group
  const int8_t* x;
  Ints sums[kGroups][tokens];
  alignas(64) float scales[kGroups][kTileRows];
  alignas(64) float mins[kGroups][kTileRows];
};

template <Grid grid, int tokens>
inline void store_line(int line, Bytes codes, Dot<grid, tokens>& out) {
  TRIT_UNROLL
  for (int t = 0; t < tokens; ++t) {
    Ints& sum = out.sums[line / Dot<grid, tokens>::kLines][t];
    const int8_t* x = out.x + 4 * (line * tokens + t);
    sum = grid.offset == 128 ? dot4_wide(sum, codes, x) : dot4(sum, codes, x);
  }
}

// Adds the product of `columns` columns to totals[tokens][16]. x, scales, starts and sums as
// Activations has them for a block of so many tokens, at the first of the columns.
template <Grid grid, int tokens, void (*lay)(const uint8_t*, int, Dot<grid, tokens>&)>
[[gnu::flatten]] void dot_tile(const uint8_t* tile, int columns, const int8_t* x,
                               const float* scales, const int32_t* starts, const float* sums,
                               float* totals) {
  constexpr int kGroups = kActivationBlock / grid.group;
  Dot<grid, tokens> dot;
  dot.x = x;
  for (int g = 0; g < columns / grid.group; ++g) {
    for (int t = 0; t < tokens; ++t) dot.sums[g][t] = broadcast_int(starts[g * tokens + t]);
  }
  if (columns == kChunkColumns) {
    lay(tile, kChunkColumns, dot);  // unrolled: the sums stay in registers
  } else {
    lay(tile, columns, dot);
  }
  Floats total[tokens];
  for (int t = 0; t < tokens; ++t) total[t] = load(totals + kTileRows * t);
  for (int block = 0; block < columns / kActivationBlock; ++block) {
    const int first = block * kGroups;
    const Floats scale = load(dot.scales[first]);
    const Floats zero = scale * broadcast(-kSumZeroFloat);
    TRIT_UNROLL
    for (int t = 0; t < tokens; ++t) {
      Floats part = scaled_sum(dot.sums[first][t], scale, zero);
      for (int g = first + 1; g < first + kGroups; ++g) {
        part = fma(sum_to_floats(dot.sums[g][t]), load(dot.scales[g]), part);
      }
      total[t] = fma(part, broadcast(scales[block * tokens + t]), total[t]);
      if constexpr (grid.has_mins) {
        for (int g = first; g < first + kGroups; ++g) {
          total[t] = fnma(load(dot.mins[g]), broadcast(sums[g * tokens + t]), total[t]);
        }
      }
    }
  }
  for (int t = 0; t < tokens; ++t) store(totals + kTileRows * t, total[t]);
}

// The `dot` row of format NAME. Sixteen registers serve one token at most, and not Q6_K; without
// any, a dot gains nothing.
#define TRIT_DOT(name, tokens) dot_tile<name::kGrid, tokens, name::panel<Dot<name::kGrid, tokens>>>
#define TRIT_NO_DOTS \
  {                  \
  }
#if defined(TRIT_ISA_AVX512)
#define TRIT_DOTS(name) {TRIT_DOT(name, 1), TRIT_DOT(name, 2), TRIT_DOT(name, 3), TRIT_DOT(name, 4)}
#define TRIT_DOTS_OF_MANY_REGISTERS(name) TRIT_DOTS(name)
#elif defined(TRIT_ISA_SCALAR)
#define TRIT_DOTS(name) TRIT_NO_DOTS
#define TRIT_DOTS_OF_MANY_REGISTERS(name) TRIT_NO_DOTS
#else
#define TRIT_DOTS(name) {TRIT_DOT(name, 1)}
#define TRIT_DOTS_OF_MANY_REGISTERS(name) TRIT_NO_DOTS
#endif

}  // namespace trit::TRIT_ISA
