// The int8 product at full speed: codes and activations in the nearest cache, sums in registers.
#pragma once

#include "isa/isa.h"

namespace trit::TRIT_ISA {

// Runs `iterations` rounds of products; returns how many products of two int8 that were.
inline int64_t int8_loop(int64_t iterations) {
  constexpr int kSums = kManyRegisters ? 16 : 5;  // enough to hide the latency of the products
  constexpr int kSteps = 1024;  // per round: no sum of 4 · 127 · 127 · kSteps overflows
  constexpr int kBlocks = 16;   // of 64 codes
  alignas(64) uint8_t codes[kBlocks * 64];
  alignas(64) uint8_t x[kBlocks * 64];
  for (int i = 0; i < kBlocks * 64; ++i) codes[i] = static_cast<uint8_t>(i * 37 % 128);
  for (int i = 0; i < kBlocks * 64; ++i) x[i] = static_cast<uint8_t>(i * 29 % 255 - 127);
  Floats total = broadcast(0.0f);
  for (int64_t round = 0; round < iterations; ++round) {
    Ints sums[kSums];
    TRIT_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = broadcast_int(i);  // not twice the same
    for (int step = 0; step < kSteps; step += 2) {
      Bytes w = load_bytes(codes + step % kBlocks * 64);
      const Bytes other = load_bytes(x + step % kBlocks * 64);
      for (int i = 0; i < 2; ++i) {
        TRIT_UNROLL for (Ints& sum : sums) {
          w = opaque(w);  // or a part of the product is done once for all sums
          sum = dot4(sum, w, other);
        }
      }
    }
    TRIT_UNROLL for (Ints& sum : sums) total = total + to_floats(sum);
    codes[round % 64] ^= 1;  // so that no round repeats the one before
  }
  // A result that depends on every sum, so that none is left out: the sums are far below the bound.
  const bool possible = reduce_add(total) < 3e38f;
  return possible ? iterations * kSteps * kSums * 64 : 0;
}

}  // namespace trit::TRIT_ISA
