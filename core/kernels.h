// What one instruction set offers: a constant table of functions, filled once per ISA.
#pragma once

#include <cstdint>

#include "format.h"

namespace trit {

// A batch of activation rows, laid out for the products: tokens in blocks of `Kernels::tokens`, the
// last block as wide as what is left (w). Within the block that starts at token t:
//   codes  + t·columns       [columns / 4][w][4]   int8
//   scales + t·columns / 32  [columns / 32][w]     code · scale ≈ x
//   starts + t·groups        [groups][w]           −offset · Σ codes of the group
//   sums   + t·groups        [groups][w]           scale · Σ codes of the group
struct Activations {
  int64_t columns;
  int group;
  int tokens;
  int8_t* codes;
  float* scales;
  int32_t* starts;
  float* sums;
};

// The same blocks in float, columns padded with zeros to a multiple of four: [columns][w].
struct FloatActivations {
  int64_t columns;  // padded
  int tokens;
  float* values;
};

// Rows of a weight matrix: as they lie in the file, and as tiles where they have been packed.
struct Matrix {
  const Format* format;
  const uint8_t* data;
  int64_t row_bytes;
  int64_t rows;
  int64_t columns;
  const uint8_t* tiles = nullptr;  // of all rows, sixteen after sixteen
  int64_t tiles_bytes = 0;         // of sixteen rows
  bool mapped = false;             // `data` is a file's pages, which can be read again
};

struct AttentionShape {
  int heads_per_kv;  // query heads that share one key head
  int head_dim;
  int padded_dim;  // of a cached row: head_dim rounded up to 32
  float scale;
  float soft_cap;  // 0: none
};

// Positions per page of the cache. Keys of one head: [padded_dim][kPage] halves; values:
// [kPage][padded_dim].
constexpr int kPage = 64;

enum class Activation { kSilu, kGelu, kRelu2 };

struct Kernels {
  const char* isa;
  const FormatTable* formats;
  int tokens;  // width of a block of activations

  // Importance-weighted rounding of `rows` × `columns` floats onto the format's grid.
  // importance: one weight ≥ 0 per column, or null. Returns false where the format cannot be
  // written.
  bool (*quantize_rows)(const Format& format, const float* weights, int64_t rows, int64_t columns,
                        const float* importance, uint8_t* out);

  // x: tokens rows of `stride` floats. Rounds block after block to int8.
  void (*quantize_activations)(const float* x, int64_t stride, int first, int count, int offset,
                               const Activations& out);
  void (*arrange_activations)(const float* x, int64_t stride, int64_t columns, int first, int count,
                              const FloatActivations& out);

  // Sixteen rows from `first_row` to their tiles, tiles_bytes(w) of them.
  void (*pack)(const Matrix& w, int64_t first_row, uint8_t* tiles);

  // out[token · out_stride + row] for the 16 rows from `first_row` (fewer at the end of the
  // matrix). scratch: 16 floats per token.
  void (*multiply)(const Matrix& w, int64_t first_row, const Activations& x, const float* bias,
                   float* scratch, float* out, int64_t out_stride);
  void (*multiply_float)(const Matrix& w, int64_t first_row, const FloatActivations& x,
                         const float* bias, float* scratch, float* out, int64_t out_stride);

  void (*rms_norm)(const float* x, const float* weight, float eps, int n, float* out);
  void (*add)(const float* x, int64_t n, float* inout);
  void (*scale)(float factor, int64_t n, float* inout);
  void (*activate_gated)(Activation kind, const float* gate, const float* up, int64_t n,
                         float* out);
  void (*activate)(Activation kind, int64_t n, float* inout);
  void (*soft_cap)(float cap, int64_t n, float* inout);

  // cos, sin: pairs values each.
  void (*rope)(const float* cos, const float* sin, int pairs, bool adjacent, float* head);
  void (*store_key)(const float* head, int head_dim, int slot, uint16_t* page);
  void (*store_value)(const float* head, int head_dim, int padded_dim, int slot, uint16_t* page);

  // One query row against one key head: `queries` holds heads_per_kv heads; positions
  // first … last are seen. keys[i], values[i]: this head's part of the page of positions
  // i·kPage … (i + 1)·kPage − 1. sinks: one logit per head or null. out as queries.
  void (*attend)(const AttentionShape& shape, const float* queries, const uint16_t* const* keys,
                 const uint16_t* const* values, int64_t first, int64_t last, const float* sinks,
                 float* out);

  // Products of int8 as fast as they go, for measuring; returns how many were done.
  int64_t (*int8_loop)(int64_t iterations);
};

namespace scalar {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avxvnni {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

}  // namespace trit
