// The int8 product of tiles at full speed: codes and weights in registers, four sums.
#pragma once

#include "isa/amx.h"

namespace trit::TRIT_ISA {

// Runs `iterations` rounds of products; returns how many products of two int8 that were.
inline int64_t int8_loop(int64_t iterations) {
  constexpr int kSteps = 1024;  // per round: no sum of 64 · 127 · 127 · kSteps overflows
  constexpr int kProducts = 4 * 16 * kTileRows * 64;
  alignas(64) int8_t bytes[16 * 64];
  alignas(64) int32_t sums[16][kTileRows];
  for (int i = 0; i < 16 * 64; ++i) bytes[i] = static_cast<int8_t>(i * 29 % 255 - 127);
  const TileShapes shapes(16, 64);
  Floats total = broadcast(0.0f);
  for (int64_t round = 0; round < iterations; ++round) {
    load_tile<kCodesTile>(bytes, 64);
    load_tile<kCodesTile + 1>(bytes, 64);
    load_tile<kWeightsTile>(bytes, 64);
    load_tile<kWeightsTile + 1>(bytes, 64);
    clear_tile<0>();
    clear_tile<1>();
    clear_tile<2>();
    clear_tile<3>();
    for (int step = 0; step < kSteps; ++step) {
      multiply_tiles<0, kCodesTile, kWeightsTile>();
      multiply_tiles<1, kCodesTile, kWeightsTile + 1>();
      multiply_tiles<2, kCodesTile + 1, kWeightsTile>();
      multiply_tiles<3, kCodesTile + 1, kWeightsTile + 1>();
    }
    store_tile<0>(sums, kLineBytes);
    for (auto& row : sums) total = total + load_ints(row);
  }
  // A result that depends on the sums, which are far below the bound.
  const bool possible = reduce_add(total) < 3e38f;
  return possible ? iterations * kSteps * kProducts : 0;
}

}  // namespace trit::TRIT_ISA
