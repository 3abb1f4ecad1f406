// Rounding with error feedback through a Gram matrix; see quantizers/gptq.h for what it minimises.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "threads.h"

namespace trit {

// H = G + share · diagonal(G) + floor · 1 = U·D·Uᵀ for the symmetric n × n matrix G with its rows
// and columns in `order`, U unit upper triangular, D diagonal. n is a multiple of 32.
//   panels     [n / 32][n][32]: U_kj at panels[j / 32][k][j % 32]
//   variances  [n]: D
// Returns false, and leaves neither whole, where the sum is not positive definite.
bool factorize(Threads& threads, const Kernels& kernels, const float* gram, int64_t n,
               const int32_t* order, double share, double floor, float* panels, float* variances);

// out[j][i] += Σ over the columns k before `end` of errors[k][i] · panels of (k, first + j), for
// `count` columns j, whole panels, and 32 rows i; panels as `factorize` lays them.
void add_products(const Kernels& kernels, const float* panels, int64_t columns, int64_t first,
                  int64_t count, const float* errors, int64_t end, float* out);

// A matrix to be rounded, or one whose rounding is to be judged.
struct Feedback {
  const Format* format;
  const float* weights;  // [rows][columns]
  int64_t rows;
  int64_t columns;
  const float* panels;  // of the factor, as `factorize` gives it
  const float* variances;
  const int32_t* order;     // columns in the order of rounding: whole blocks of the format
  const float* importance;  // of each column for the search of scales
  bool given;               // `packed` is read
  uint8_t* packed;          // the rows in the format
  double* losses;           // [rows]: (w − v)·H·(w − v)ᵀ
};

// Returns false where the format cannot be written.
bool feed_back(Threads& threads, const Kernels& kernels, const Feedback& f);

// A rounded matrix to be improved.
struct Descent {
  const Format* format;
  const float* weights;  // [rows][columns]
  int64_t rows;
  int64_t columns;
  const float* panels;   // G itself, columns as they stand: G_kj at panels[j / 32][k][j % 32]
  const float* damping;  // [columns]: H = G + diagonal(damping)
  int sweeps;            // over all columns
  uint8_t* packed;       // the rows in the format
};

// Leaves formats with codebooks as they are. Reads all of G, which is symmetric.
void descend(Threads& threads, const Kernels& kernels, const Descent& d);

}  // namespace trit
