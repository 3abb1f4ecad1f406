// Second moments of activations: sums of squares, and of products of columns.
#pragma once

#include "isa/isa.h"
#include "kernels.h"

namespace trit::TRIT_ISA {

// sums[i] += x[row][i]², row after row. A square of a float is exact in double, so only the
// additions round.
template <int N>
inline void add_squares_of(const float* x, int64_t stride, int64_t rows, double* sums) {
  double held[N];
  for (int i = 0; i < N; ++i) held[i] = sums[i];
  for (int64_t row = 0; row < rows; ++row, x += stride) {
    for (int i = 0; i < N; ++i) held[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  for (int i = 0; i < N; ++i) sums[i] = held[i];
}

inline void add_squares(const float* x, int64_t stride, int64_t rows, int64_t n, double* sums) {
  constexpr int kHeld = 32;  // sums in registers
  int64_t i = 0;
  for (; i + kHeld <= n; i += kHeld) add_squares_of<kHeld>(x + i, stride, rows, sums + i);
  for (; i < n; ++i) add_squares_of<1>(x + i, stride, rows, sums + i);
}

// `J` columns of b by 16 · I columns of a, summed in registers over all rows.
template <int I, int J>
inline void multiply_strip(const float* a, const float* b, int rows, float* out) {
  Floats sums[J][I];
  TRIT_UNROLL
  for (int j = 0; j < J; ++j) {
    for (int i = 0; i < I; ++i) sums[j][i] = broadcast(0.0f);
  }
  for (int row = 0; row < rows; ++row) {
    Floats x[I];
    for (int i = 0; i < I; ++i) x[i] = load(a + row * kMomentColumns + 16 * i);
    TRIT_UNROLL
    for (int j = 0; j < J; ++j) {
      const Floats y = broadcast(b[row * kMomentColumns + j]);
      for (int i = 0; i < I; ++i) sums[j][i] = fma(x[i], y, sums[j][i]);
    }
  }
  for (int j = 0; j < J; ++j) {
    for (int i = 0; i < I; ++i) {
      float* to = out + j * kMomentColumns + 16 * i;
      store(to, load(to) + sums[j][i]);
    }
  }
}

inline void add_products(const float* a, const float* b, int rows, float* out) {
  constexpr int kWide = kManyRegisters ? 2 : 1;
  constexpr int kColumns = kManyRegisters ? 8 : 4;
  for (int i = 0; i < kMomentColumns; i += 16 * kWide) {
    for (int j = 0; j < kMomentColumns; j += kColumns) {
      multiply_strip<kWide, kColumns>(a + i, b + j, rows, out + j * kMomentColumns + i);
    }
  }
}

}  // namespace trit::TRIT_ISA
