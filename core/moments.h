// Second moments of the inputs of linears, for the quantizers: what each column carries, and how
// columns go together. Every sum has a fixed order, whatever the number of threads.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "threads.h"

namespace trit {

// sums[column] += x², rows one after the other. x: [rows][columns].
void add_squares(Threads& threads, const Kernels& kernels, const float* x, int64_t rows,
                 int64_t columns, double* sums);

// gram[i][j] += Σ over rows x[row][i] · x[row][j], for j ≥ i at least; what else is written lies
// within kMomentBlock of the diagonal and is right too. Sums are float32: fused multiply-adds over
// kMomentRows rows, then the sum of those, then what was there.
void add_gram(Threads& threads, const Kernels& kernels, const float* x, int64_t rows,
              int64_t columns, float* gram);

constexpr int kMomentRows = 64;
constexpr int kMomentBlock = 4 * kMomentColumns;

}  // namespace trit
