// Sixteen blocks side by side, one per lane, as the scale searches want them.
//
// A search over one block is a chain of short reductions; over sixteen blocks at once there is
// none: each lane keeps its own sums, so every instruction set adds the same numbers in the same
// order and writes equal bytes, and a block's bytes do not depend on which blocks are its
// neighbours.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "format.h"
#include "isa/isa.h"

namespace trit::TRIT_ISA::rtn {

constexpr int kLanes = 16;
constexpr int kMaxBlock = 256;
constexpr int kMaxBlockGroups = 16;
constexpr int kTurns = 2;  // of integers and block scales; a third gains 0.1%
constexpr float kHalfMax = 65504.0f;

// A column of sixteen lanes; kernels index weights as column[i].
using Column = float[kLanes];

// x is scaled by a power of two per lane so that its largest magnitude lies in [1, 4): squares and
// products then neither overflow nor vanish, whatever the model's units. Exact, and undone in `d`.
struct BlockLanes {
  alignas(64) Column x[kMaxBlock];
  alignas(64) Column w[kMaxBlock];      // weight of each squared error, positive
  alignas(64) Column codes[kMaxBlock];  // the outcome, as the format stores it
  alignas(64) float shrink[kLanes];     // file units → search units
  alignas(64) float grow[kLanes];       // and back
  Block blocks[kLanes];
};

inline Floats zeros() { return broadcast(0.0f); }

// To nearest even, for |a| < 2^22; larger values and NaN pass through to a clamp.
inline Floats round_even(Floats a) {
  const Floats magic = broadcast(12582912.0f);  // 1.5 · 2^23: the adder drops the fraction
  return (a + magic) - magic;
}

// NaN becomes `low`, so that no conversion to integer ever sees one.
inline Floats clamp(Floats a, float low, float high) {
  return min(max(a, broadcast(low)), broadcast(high));
}

// 1 / a, and 0 where a is 0: everything then rounds to the code of zero.
inline Floats inverse(Floats a) {
  return select_less(zeros(), abs(a), broadcast(1.0f) / a, zeros());
}

// Largest |x| of each lane over n weights.
inline Floats largest(const Column* x, int n) {
  Floats most = zeros();
  for (int i = 0; i < n; ++i) most = max(abs(load(x[i])), most);
  return most;
}

// The power of two at or below the magnitude, and its inverse; zero for what fp16 scales cannot
// hold.
inline void set_units(BlockLanes& lanes, Floats magnitude) {
  alignas(64) float most[kLanes];
  store(most, magnitude);
  for (int lane = 0; lane < kLanes; ++lane) {
    uint32_t exponent = (std::bit_cast<uint32_t>(most[lane]) >> 23) & 0xffu;
    if (exponent > 253) exponent = 253;
    const bool vanishes = exponent < 67;  // below 2^-60
    lanes.grow[lane] = vanishes ? 0.0f : std::bit_cast<float>(exponent << 23);
    lanes.shrink[lane] = vanishes ? 0.0f : std::bit_cast<float>((254 - exponent) << 23);
  }
}

// The nearest number that fp16 can hold (never infinity), as bits, and back in search units. What
// is not zero becomes at least `smallest`: a scale that is too large rounds better than one of
// zero.
inline Floats round_to_half(const BlockLanes& lanes, Floats d, uint16_t* bits, float smallest) {
  alignas(64) float values[kLanes];
  store(values, d);
  for (int lane = 0; lane < kLanes; ++lane) {
    const float real = values[lane] * lanes.grow[lane];
    float magnitude = std::fabs(real);
    if (magnitude > kHalfMax) magnitude = kHalfMax;
    if (magnitude > 0.0f && magnitude < smallest) magnitude = smallest;
    bits[lane] = float_to_half(std::copysign(magnitude, real));
    values[lane] = half_to_float(bits[lane]) * lanes.shrink[lane];
  }
  return load(values);
}
inline Floats round_scale(const BlockLanes& lanes, Floats d, uint16_t* bits) {
  return round_to_half(lanes, d, bits, 0x1p-24f);
}
inline Floats round_offset(const BlockLanes& lanes, Floats m, uint16_t* bits) {
  return round_to_half(lanes, m, bits, 0.0f);
}

// `count` ≤ 16 blocks of n weights from `rows`; lanes beyond them hold zeros.
inline void transpose_blocks(const float* rows, int n, int count, Column* out) {
  if (count == kLanes) {
    for (int i = 0; i < n; i += kLanes) transpose(rows + i, n, out[i]);
    return;
  }
  std::memset(out, 0, sizeof(Column) * static_cast<size_t>(n));
  for (int lane = 0; lane < count; ++lane) {
    for (int i = 0; i < n; ++i) out[i][lane] = rows[lane * n + i];
  }
}

// Importance of each lane's columns, scaled per lane like x. A floor far below one keeps every
// weight positive: columns without statistics then count a little, and evenly.
inline void gather_importance(const float* importance, int64_t columns, int64_t first, int n,
                              int count, BlockLanes& lanes) {
  alignas(64) float rows[kLanes * kMaxBlock];
  for (int lane = 0; lane < count; ++lane) {
    const int64_t column = (first + lane) * n % columns;
    std::memcpy(rows + lane * n, importance + column, sizeof(float) * static_cast<size_t>(n));
  }
  transpose_blocks(rows, n, count, lanes.w);
  set_units(lanes, largest(lanes.w, n));
  const Floats shrink = load(lanes.shrink);
  const Floats floor = broadcast(0x1p-30f);
  for (int i = 0; i < n; ++i) store(lanes.w[i], max(load(lanes.w[i]) * shrink, floor));
}

// Blocks first … first + count − 1 of n weights each, counted through all rows.
inline void gather(const float* weights, const float* importance, int64_t columns, int64_t first,
                   int n, int count, BlockLanes& lanes) {
  if (importance != nullptr) {
    gather_importance(importance, columns, first, n, count, lanes);
  } else {
    for (int i = 0; i < n; ++i) store(lanes.w[i], broadcast(1.0f));
  }
  transpose_blocks(weights + first * n, n, count, lanes.x);
  set_units(lanes, largest(lanes.x, n));
  const Floats shrink = load(lanes.shrink);
  for (int i = 0; i < n; ++i) store(lanes.x[i], load(lanes.x[i]) * shrink);
}

// Writes the codes and hands each lane's block to the format. The caller has filled in the scales.
inline void scatter(const Format& format, int count, BlockLanes& lanes, uint8_t* out) {
  alignas(64) float square[kLanes * kLanes];  // [lane][column]
  for (int i = 0; i < format.block_weights; i += kLanes) {
    transpose(lanes.codes[i], kLanes, square);
    for (int lane = 0; lane < count; ++lane) {
      uint8_t* codes = lanes.blocks[lane].codes + i;
      const Floats centred = load(square + kLanes * lane) - broadcast(128.0f);  // bytes are signed
      store_bytes(reinterpret_cast<int8_t*>(codes), round_to_ints(centred));
      for (int j = 0; j < kLanes; ++j) codes[j] ^= 0x80u;
    }
  }
  for (int lane = 0; lane < count; ++lane) {
    format.pack(lanes.blocks[lane], out + static_cast<int64_t>(lane) * format.block_bytes);
  }
}

}  // namespace trit::TRIT_ISA::rtn
