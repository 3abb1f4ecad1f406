// The int8 product at full speed: codes and activations in the nearest cache, sums in registers.
#pragma once

#include "isa/isa.h"

namespace trit::TRIT_ISA {

// Runs `iterations` rounds of products, laid out as `multiply` does them (rows of 16 weights by a
// block of activations); returns how many products of two int8 that were.
inline int64_t int8_loop(int64_t iterations) {
  constexpr int kRows = 2;      // with kTokens: sums enough to hide the latency of the products
  constexpr int kSteps = 1024;  // per round: no sum of 4 · 127 · 127 · kSteps overflows
  constexpr int kBlocks = 16;   // of 64 codes
  alignas(64) uint8_t codes[kBlocks * 64];
  alignas(64) int8_t x[kBlocks * 4 * kTokens];
  for (int i = 0; i < kBlocks * 64; ++i) codes[i] = static_cast<uint8_t>(i * 37 % 128);
  for (int i = 0; i < kBlocks * 4 * kTokens; ++i) x[i] = static_cast<int8_t>(i * 29 % 255 - 127);
  Floats total = broadcast(0.0f);
  for (int64_t round = 0; round < iterations; ++round) {
    Ints sums[kRows][kTokens];
    for (auto& row : sums) {
      for (Ints& sum : row) sum = broadcast_int(0);
    }
    for (int step = 0; step < kSteps; ++step) {
      const int block = step % kBlocks;
      for (int row = 0; row < kRows; ++row) {
        const Bytes w = load_bytes(codes + (block + row) % kBlocks * 64);
        for (int token = 0; token < kTokens; ++token) {
          sums[row][token] = dot4(sums[row][token], w, x + (block * kTokens + token) * 4);
        }
      }
    }
    for (auto& row : sums) {
      for (Ints& sum : row) total = total + to_floats(sum);
    }
    codes[round % 64] ^= 1;  // so that no round repeats the one before
  }
  // A result that depends on every sum, so that none is left out: the sums are far below the bound.
  const bool possible = reduce_add(total) < 3e38f;
  return possible ? iterations * kSteps * kRows * kTokens * 64 : 0;
}

}  // namespace trit::TRIT_ISA
