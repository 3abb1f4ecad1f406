// What one instruction set offers: a constant table of functions, filled once per ISA.
#pragma once

#include <cstdint>

#include "format.h"

namespace trit {

constexpr int kTokenPadding = 16;

// A batch of activation rows, laid out for the products: tokens in blocks of `Kernels::tokens`, the
// last block as wide as what is left (w). Within the block that starts at token t:
//   codes  + t·columns       [columns / 4][w][4]   int8
//   scales + t·columns / 32  [columns / 32][w]     code · scale ≈ x
//   starts + t·groups        [groups][w]           kSumZero − offset · Σ codes of the group
//   sums   + t·groups        [groups][w]           scale · Σ codes of the group
// Kernels that multiply by tiles have the codes of more than kDotTokens tokens in [columns / 32]
// [w][32]. They read codes as if w were sixteen, all else as if it were a multiple of eight.
struct Activations {
  int64_t columns;
  int group;
  int tokens;
  int8_t* codes;
  float* scales;
  int32_t* starts;
  float* sums;
};

// Such blocks in float, kFloatTokens wide, columns padded with zeros to a multiple of four:
// [columns][w].
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
  bool adds = false;               // products by additions; of formats that `can_add`
};

// Element type of cached keys and values. Q8_0: int8 codes with a half scale for each position and
// 32 dimensions.
enum class CacheType { kF32, kF16, kQ8_0 };

// Positions per page of the cache. Of one head a page holds
//   keys    [padded_dim][kPage]   so that a lane is a position
//   values  [kPage][padded_dim]   so that a lane is a dimension
// and of Q8_0 behind each the scales, [padded_dim / kCacheBlock][kPage].
constexpr int kPage = 64;
constexpr int kCacheBlock = 32;

// Bytes of one head's keys, or values, in a page.
constexpr int64_t cell_bytes(CacheType type, int padded_dim) {
  const int64_t cells = int64_t{kPage} * padded_dim;
  if (type == CacheType::kF32) return cells * 4;
  return type == CacheType::kF16 ? cells * 2 : cells + cells / kCacheBlock * 2;
}

// Pages whose positions are summed up on their own, whoever asks: page i belongs to span i /
// kSpanPages. Spans may be run by different threads; they are added up in their order.
constexpr int kSpanPages = 4;

struct AttentionShape {
  int heads_per_kv;  // query heads that share one key head
  int head_dim;
  int padded_dim;  // of a cached row: head_dim rounded up to kCacheBlock
  float scale;
  float soft_cap;  // 0: none
  int64_t window;  // 0: none
  CacheType type;
};

// Consecutive positions of one sequence and the query heads that share one key head. A row's heads
// lie one after the other, rows `stride` floats apart. pages[i] holds positions i·kPage …
// (i + 1)·kPage − 1, this head's keys and values so many bytes from its start. sinks: one logit per
// head or null.
struct AttentionRows {
  int count;
  int64_t position;  // of the first
  int64_t stride;
  const float* queries;
  const uint8_t* const* pages;
  int64_t keys;
  int64_t values;
  const float* sinks;
  float* out;
};

// Floats that sums over some queries take: largest score and total weight of each, then values.
constexpr int64_t partial_floats(int queries, int padded_dim) {
  return (queries + 15) / 16 * 32 + int64_t{queries} * padded_dim;
}

// Floats of scratch that attention to `queries` queries takes.
constexpr int64_t attention_scratch(int queries, int padded_dim) {
  return 64 + (queries + 16) * (kPage + 1 + int64_t{padded_dim}) + int64_t{kPage} * padded_dim +
         2 * partial_floats(queries, padded_dim);
}

// Columns of a panel whose products with those of another are summed together.
constexpr int kMomentColumns = 32;

// Columns of a tile of a matrix that is factorized.
constexpr int kFactorTile = 64;

// One block of columns of 32 rows that error feedback rounds; see quantizers/gptq.h. Arrays by
// column hold [columns][32 rows]; columns are in the order in which they are rounded.
struct FeedbackBlock {
  const Format* format;
  int columns;           // of the format's block
  const float* weights;  // by column
  const float* carried;  // by column: what the errors of earlier blocks add to the weights
  const float* factor;   // unit upper triangle: (k, j) at j / 32 · stride + 32k + j % 32
  int64_t stride;
  const float* variances;   // of each column, given those after it
  const float* importance;  // of each column for the search of scales, as they lie in the format
  const int32_t* places;    // of the columns in the format's block
  bool given;               // `packed` holds the values: nothing is rounded
  uint8_t* packed;          // 32 blocks
  float* errors;            // by column: weights − values
  double* losses;           // of each row, added to: Σ variance · (error with what is carried)²
};

// One block of columns of 32 rows whose codes are improved; see quantizers/gptq_descent.h. Arrays
// by column hold [columns][32 rows].
struct DescentBlock {
  const Format* format;
  int columns;           // of the format's block
  const float* weights;  // by column
  const float* gram;     // among the block's columns: (k, j) at j / 32 · stride + 32k + j % 32
  int64_t stride;
  const float* damping;  // of each column: what is added to the matrix's diagonal
  float* gradients;      // by column: Σ over all columns k of errors · H; used up
  float* errors;         // by column: weights − values
  uint8_t* packed;       // 32 blocks
};

// Tiles of sixteen rows that are multiplied together, a stripe, at most.
constexpr int kStripeTiles = 4;

// Tiles to a stripe where `tiles` of them are shared out among threads.
constexpr int64_t stripe_tiles(int64_t tiles, int threads, int64_t tokens) {
  if (tokens <= kDotTokens) return 1;
  const int64_t share = tiles / (threads * 8);
  return share < 1 ? 1 : share < kStripeTiles ? share : kStripeTiles;
}

// Floats of scratch that a product with so many tokens takes.
constexpr int64_t product_scratch(int64_t tokens) {
  return (tokens + kTokenPadding - 1) / kTokenPadding * kTokenPadding * kTileRows * kStripeTiles;
}

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

  // Rounds a block with error feedback. Returns false where the format cannot be written.
  bool (*feed_back)(const FeedbackBlock& block);
  // Improves a block that is rounded; leaves formats with codebooks as they are.
  void (*descend)(const DescentBlock& block);
  // out[j][i] −= Σ over k a[k][i] · b[k][j]; all are kFactorTile × kFactorTile.
  void (*subtract_products)(const double* a, const double* b, double* out);

  // x: tokens rows of `stride` floats. Rounds block after block to int8.
  void (*quantize_activations)(const float* x, int64_t stride, int first, int count, int offset,
                               const Activations& out);
  void (*arrange_activations)(const float* x, int64_t stride, int64_t columns, int first, int count,
                              const FloatActivations& out);

  // Sixteen rows from `first_row` to their tiles, tiles_bytes(w) of them.
  void (*pack)(const Matrix& w, int64_t first_row, uint8_t* tiles);

  // out[token · out_stride + row] for rows from `first_row` (a multiple of sixteen) to `end_row`,
  // at most kStripeTiles tiles of them. scratch: product_scratch floats.
  void (*multiply)(const Matrix& w, int64_t first_row, int64_t end_row, const Activations& x,
                   const float* bias, float* scratch, float* out, int64_t out_stride);
  // The same for the 16 rows from `first_row` (fewer at the end of the matrix).
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
  void (*store_key)(CacheType type, const float* head, int head_dim, int padded_dim, int slot,
                    uint8_t* page);
  void (*store_value)(CacheType type, const float* head, int head_dim, int padded_dim, int slot,
                      uint8_t* page);

  // All that the rows see. scratch: attention_scratch floats.
  void (*attend)(const AttentionShape& shape, const AttentionRows& rows, float* scratch);
  // The same in parts: the sums over one span, then the spans that the rows see, in order, into
  // out. partials: partial_floats for each.
  void (*attend_span)(const AttentionShape& shape, const AttentionRows& rows, int64_t span,
                      float* scratch, float* partial);
  void (*attend_merge)(const AttentionShape& shape, const AttentionRows& rows, int64_t spans,
                       const float* partials, float* scratch);

  // sums[i] += x[row][i]², row after row, for n columns of rows `stride` apart.
  void (*add_squares)(const float* x, int64_t stride, int64_t rows, int64_t n, double* sums);
  // out[j][i] += Σ over rows a[row][i] · b[row][j]; each row is kMomentColumns floats.
  void (*add_products)(const float* a, const float* b, int rows, float* out);

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
namespace amx {
extern const Kernels kKernels;
}

}  // namespace trit
