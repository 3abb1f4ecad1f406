// The inner loop of the factorization behind error feedback, in double.
#pragma once

#include "isa/isa.h"
#include "kernels.h"

namespace trit::TRIT_ISA {

template <int I, int J>
inline void subtract_strip(const double* a, const double* b, double* out) {
  Doubles sums[J][I];
  TRIT_UNROLL
  for (int j = 0; j < J; ++j) {
    for (int i = 0; i < I; ++i) sums[j][i] = load(out + j * kFactorTile + 8 * i);
  }
  for (int k = 0; k < kFactorTile; ++k) {
    Doubles x[I];
    for (int i = 0; i < I; ++i) x[i] = load(a + k * kFactorTile + 8 * i);
    TRIT_UNROLL
    for (int j = 0; j < J; ++j) {
      const Doubles y = broadcast_double(b[k * kFactorTile + j]);
      for (int i = 0; i < I; ++i) sums[j][i] = fnma(x[i], y, sums[j][i]);
    }
  }
  for (int j = 0; j < J; ++j) {
    for (int i = 0; i < I; ++i) store(out + j * kFactorTile + 8 * i, sums[j][i]);
  }
}

// See Kernels::subtract_products.
void subtract_products(const double* a, const double* b, double* out) {
  constexpr int kWide = kManyRegisters ? 2 : 1;
  constexpr int kColumns = kManyRegisters ? 8 : 4;
  for (int i = 0; i < kFactorTile; i += 8 * kWide) {
    for (int j = 0; j < kFactorTile; j += kColumns) {
      subtract_strip<kWide, kColumns>(a + i, b + j, out + j * kFactorTile + i);
    }
  }
}

}  // namespace trit::TRIT_ISA
