// The two products of attention, a tile of queries at a time, their sums in registers:
// scores = queries · keys and sums = weights · values.
#pragma once

#include <type_traits>

#include "isa/isa.h"
#include "kernels.h"
#include "ops/cells.h"

// A tile's sums stay in registers only where the loops over them are unrolled from the start. The
// scalar build has no registers for them and would take minutes to compile.
#if defined(TRIT_ISA_SCALAR)
#define TRIT_TILE
#else
#define TRIT_TILE _Pragma("GCC unroll 8")
#endif

namespace trit::TRIT_ISA {

// Queries to a tile. Their sums fill half of thirty-two registers, three quarters of sixteen.
constexpr int kTile = kManyRegisters ? 8 : 6;

// Calls f with the count, 1 … kTile, as a constant.
template <typename F>
inline void with_count(int count, F f) {
  switch (count) {
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 5:
      return f(std::integral_constant<int, 5>{});
    case 6:
      return f(std::integral_constant<int, 6>{});
  }
  if constexpr (kTile == 8) {
    if (count == 7) return f(std::integral_constant<int, 7>{});
    return f(std::integral_constant<int, 8>{});
  }
}

// The same cells of the next page, on their way while these are used.
inline __attribute__((always_inline)) void fetch(const uint8_t* next, int64_t from, int64_t bytes) {
  for (int64_t at = from; at < from + bytes; at += 64) __builtin_prefetch(next + at, 0, 2);
}

// Scores of `Strip` times sixteen positions from `lane` on; queries [dim][Queries].
template <CacheType type, int Queries, int Strip>
inline void score_strip(const float* queries, int dim, int padded_dim, const uint8_t* keys,
                        int lane, float* scores, const uint8_t* next) {
  Floats sums[Queries][Strip];
  TRIT_TILE for (int q = 0; q < Queries; ++q) {
    TRIT_TILE for (int i = 0; i < Strip; ++i) sums[q][i] = broadcast(0.0f);
  }
  constexpr int64_t row = kPage * cell_size(type);
  for (int block = 0; block * kCacheBlock < dim; ++block) {
    Floats scales[Strip];
    if constexpr (type == CacheType::kQ8_0) {
      for (int i = 0; i < Strip; ++i) {
        scales[i] = load_scales(keys, padded_dim, block, lane + 16 * i);
      }
      if (next) fetch(next, int64_t{kPage} * padded_dim + int64_t{block} * kPage * 2, kPage * 2);
    }
    const int end = dim < (block + 1) * kCacheBlock ? dim : (block + 1) * kCacheBlock;
    for (int d = block * kCacheBlock; d < end; ++d) {
      Floats k[Strip];
      TRIT_TILE for (int i = 0; i < Strip; ++i) {
        k[i] = load_cells<type>(keys, int64_t{d} * kPage + lane + 16 * i);
        if constexpr (type == CacheType::kQ8_0) k[i] = k[i] * scales[i];
      }
      if (next) fetch(next, d * row, row);
      TRIT_TILE for (int q = 0; q < Queries; ++q) {
        const Floats x = broadcast(queries[d * Queries + q]);
        TRIT_TILE for (int i = 0; i < Strip; ++i) sums[q][i] = fma(x, k[i], sums[q][i]);
      }
    }
  }
  TRIT_TILE for (int q = 0; q < Queries; ++q) {
    TRIT_TILE for (int i = 0; i < Strip; ++i) {
      store(scores + q * kPage + lane + 16 * i, sums[q][i]);
    }
  }
}

// scores[query][position] for the positions of a page from `begin` to `end`, and some around them.
// next: keys of the page to fetch, or null.
template <CacheType type>
inline void score_tile(int count, const float* queries, int dim, int padded_dim,
                       const uint8_t* keys, int begin, int end, float* scores,
                       const uint8_t* next) {
  with_count(count, [&](auto queries_constant) {
    constexpr int kQueries = queries_constant();
    constexpr int kStrip = kManyRegisters ? (kQueries > 4 ? 2 : 4) : (kQueries > 3 ? 1 : 2);
    for (int lane = begin / (16 * kStrip) * 16 * kStrip; lane < end; lane += 16 * kStrip) {
      score_strip<type, kQueries, kStrip>(queries, dim, padded_dim, keys, lane, scores, next);
      next = nullptr;
    }
  });
}

// `Strip` times sixteen dimensions from `d` on. scales: of each position, of Q8_0.
template <CacheType type, int Queries, int Strip>
inline void gather_strip(const float* weights, const float* shrink, int begin, int end,
                         const uint8_t* values, const float* scales, int padded_dim, int d,
                         float* out, const uint8_t* next) {
  Floats sums[Queries][Strip];
  TRIT_TILE for (int q = 0; q < Queries; ++q) {
    const Floats factor = broadcast(shrink[q]);
    TRIT_TILE for (int i = 0; i < Strip; ++i) {
      sums[q][i] = load(out + q * padded_dim + d + 16 * i) * factor;
    }
  }
  constexpr int64_t bytes = 16 * Strip * cell_size(type);
  for (int p = begin; p < end; ++p) {
    const int64_t at = int64_t{p} * padded_dim + d;
    Floats v[Strip];
    TRIT_TILE for (int i = 0; i < Strip; ++i) {
      v[i] = load_cells<type>(values, at + 16 * i);
      if constexpr (type == CacheType::kQ8_0) v[i] = v[i] * broadcast(scales[p]);
    }
    if (next) fetch(next, at * cell_size(type), bytes);
    TRIT_TILE for (int q = 0; q < Queries; ++q) {
      const Floats weight = broadcast(weights[q * kPage + p]);
      TRIT_TILE for (int i = 0; i < Strip; ++i) sums[q][i] = fma(weight, v[i], sums[q][i]);
    }
  }
  TRIT_TILE for (int q = 0; q < Queries; ++q) {
    TRIT_TILE for (int i = 0; i < Strip; ++i) {
      store(out + q * padded_dim + d + 16 * i, sums[q][i]);
    }
  }
}

// out[query] = out[query] · shrink[query] + Σ weights[query][position] · values[position].
template <CacheType type>
inline void gather_tile(int count, const float* weights, const float* shrink, int begin, int end,
                        const uint8_t* values, int padded_dim, float* out, const uint8_t* next) {
  with_count(count, [&](auto queries_constant) {
    constexpr int kQueries = queries_constant();
    constexpr int kStrip = kManyRegisters || kQueries <= 3 ? 2 : 1;
    alignas(64) float scales[kPage];
    for (int d = 0; d < padded_dim; d += 16 * kStrip) {
      if constexpr (type == CacheType::kQ8_0) {
        for (int lane = 0; lane < kPage; lane += 16) {
          store(scales + lane, load_scales(values, padded_dim, d / kCacheBlock, lane));
        }
      }
      gather_strip<type, kQueries, kStrip>(weights, shrink, begin, end, values, scales, padded_dim,
                                           d, out, next);
    }
  });
}

}  // namespace trit::TRIT_ISA
