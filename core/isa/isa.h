// Picks the vocabulary of the instruction set this file is being compiled for.
//
// Every generic kernel is written once over sixteen-lane values: `Floats` (16 × float), `Ints`
// (16 × int32) and `Bytes` (64 × uint8, four per int32 lane). `Doubles` has eight lanes. Each
// header below defines them in the namespace trit::TRIT_ISA. Rounding, fused multiply-add and the
// order of every reduction are the same in all of them, so kernels built on this vocabulary give
// equal bits on every instruction set.
#pragma once

#if defined(TRIT_ISA_AMX)
#define TRIT_ISA amx
#include "isa/avx512.h"
#elif defined(TRIT_ISA_AVX512)
#define TRIT_ISA avx512
#include "isa/avx512.h"
#elif defined(TRIT_ISA_AVXVNNI)
#define TRIT_ISA avxvnni
#include "isa/avx2.h"
#elif defined(TRIT_ISA_AVX2)
#define TRIT_ISA avx2
#include "isa/avx2.h"
#else
#define TRIT_ISA scalar
#include "isa/scalar.h"
#endif

// Unrolls the loop that follows, where its values then stay in registers.
#if defined(TRIT_ISA_SCALAR)  // has none, and would take minutes to compile
#define TRIT_UNROLL
#else
#define TRIT_UNROLL _Pragma("GCC unroll 16")
#endif

namespace trit::TRIT_ISA {

// Sums of int8 products start at the bits of 1.5 · 2²³, so that as floats they are that much too
// large, exactly, while the sum itself is below 2²². Converting integers would take the units that
// the products need.
constexpr int32_t kSumZero = 0x4b400000;
constexpr float kSumZeroFloat = 12582912.0f;
inline Floats sum_to_floats(Ints sum) { return as_floats(sum) - broadcast(kSumZeroFloat); }

// sum · scale, rounded once, where zero = −kSumZeroFloat · scale. A scale is a half float times up
// to eight bits: three times it is exact, and so is `zero`.
inline Floats scaled_sum(Ints sum, Floats scale, Floats zero) {
  return fma(as_floats(sum), scale, zero);
}

// All lanes folded by f into every lane: i with i + 8, then i + 4, i + 2, i + 1.
template <typename F>
inline Floats fold_lanes(Floats value, F f) {
  value = f(value, swap_lanes<8>(value));
  value = f(value, swap_lanes<4>(value));
  value = f(value, swap_lanes<2>(value));
  return f(value, swap_lanes<1>(value));
}

inline Floats sum_lanes(Floats value) {
  return fold_lanes(value, [](Floats a, Floats b) { return a + b; });
}

inline Floats largest_lane(Floats value) {
  return fold_lanes(value, [](Floats a, Floats b) { return max(a, b); });
}

inline float first_lane(Floats value) {
  alignas(64) float lanes[16];
  store(lanes, value);
  return lanes[0];
}

inline float reduce_add(Floats value) { return first_lane(sum_lanes(value)); }

inline float reduce_max(Floats value) { return first_lane(largest_lane(value)); }

}  // namespace trit::TRIT_ISA
