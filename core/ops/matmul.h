// Products of a weight matrix with a batch of activations, a stripe of rows of the matrix at a
// time.
//
// For every tile of sixteen rows and 256 columns the weights are laid into a panel (in the
// first-level cache) and multiplied with all tokens of the batch; up to kDotTokens tokens are
// multiplied without one. One lane is one output row: no horizontal sums. Each output is folded
// over its blocks of 32 columns in order, with exact int32 sums inside, so its bits depend neither
// on the batch it came in, nor on threads, nor on the ISA.
#pragma once

#include "format.h"
#include "isa/isa.h"
#include "kernels.h"
#include "ops/add_product.h"
#include "ops/panel_input.h"
#if defined(TRIT_ISA_AMX)
#include "ops/tile_product.h"
#else
#include "ops/panel_product.h"
#endif

namespace trit::TRIT_ISA {

constexpr int kBlock = kActivationBlock;

inline int block_width(int token, int tokens, int most = kTokens) {
  return tokens - token < most ? tokens - token : most;
}

// Whether a batch's codes are arranged for tiles: [columns / 32][w][32].
inline bool for_tiles(int tokens) { return kHasTiles && tokens > kDotTokens; }

// Rounds `count` tokens from `first` (a multiple of kTokens) to int8, 32 columns per scale.
inline void quantize_activations(const float* x, int64_t stride, int first, int count, int offset,
                                 const Activations& out) {
  if (kWideIsSigned && offset == 128) offset = 0;  // dot4_wide has taken it off
  const int64_t columns = out.columns;
  const int groups_per_block = kBlock / out.group;
  for (int token = first; token < first + count; ++token) {
    const int start = token - token % kTokens;
    const int width = block_width(start, out.tokens);
    const int lane = token - start;
    const bool tiles = for_tiles(out.tokens);
    int8_t* codes = out.codes + start * columns + (tiles ? kBlock : 4) * lane;
    float* scales = out.scales + start * (columns / kBlock) + lane;
    int32_t* starts = out.starts + start * (columns / out.group) + lane;
    float* sums = out.sums + start * (columns / out.group) + lane;
    for (int64_t block = 0; block < columns / kBlock; ++block) {
      const float* in = x + token * stride + block * kBlock;
      const Floats lo = load(in);
      const Floats hi = load(in + 16);
      const float largest = reduce_max(max(abs(lo), abs(hi)));
      const float scale = largest / 127.0f;
      // A block too small for its scale counts as zero: 127 / largest would overflow.
      const Floats inverse = broadcast(scale >= 0x1p-126f ? 127.0f / largest : 0.0f);
      const Ints rounded_lo = round_to_ints(lo * inverse);
      const Ints rounded_hi = round_to_ints(hi * inverse);
      alignas(64) int8_t rounded[kBlock];
      store_bytes(rounded, rounded_lo);
      store_bytes(rounded + 16, rounded_hi);
      int8_t* to = codes + block * kBlock * width;
      if (tiles) {
        std::memcpy(to, rounded, kBlock);
      } else {
        for (int i = 0; i < kBlock / 4; ++i) std::memcpy(to + 4 * i * width, rounded + 4 * i, 4);
      }
      scales[block * width] = scale;
      // Sums of so few small integers are exact in float.
      const float halves[] = {reduce_add(to_floats(rounded_lo)), reduce_add(to_floats(rounded_hi))};
      for (int g = 0; g < groups_per_block; ++g) {
        const float sum = groups_per_block == 2 ? halves[g] : halves[0] + halves[1];
        const int64_t index = (block * groups_per_block + g) * width;
        starts[index] = kSumZero - offset * static_cast<int32_t>(sum);
        sums[index] = scale * sum;
      }
    }
  }
}

inline void arrange_activations(const float* x, int64_t stride, int64_t columns, int first,
                                int count, const FloatActivations& out) {
  for (int token = first; token < first + count; ++token) {
    const int start = token - token % kFloatTokens;
    const int width = block_width(start, out.tokens, kFloatTokens);
    float* to = out.values + start * out.columns + (token - start);
    for (int64_t i = 0; i < out.columns; ++i) {
      to[i * width] = i < columns ? x[token * stride + i] : 0.0f;
    }
  }
}

// `width` tokens from `first`, a block of them, beside the panel whose first column is `column`.
inline PanelInput panel_input(const Panel& panel, int64_t column, int columns, const Activations& x,
                              int first, int width) {
  const int64_t at_block = first * (x.columns / kBlock) + column / kBlock * width;
  const int64_t at_group = first * (x.columns / x.group) + column / x.group * width;
  const int8_t* codes = x.codes + first * x.columns + column * width;
  return {
      panel, columns, width, codes, x.scales + at_block, x.starts + at_group, x.sums + at_group};
}

inline TileRows tile_rows(const Matrix& w, int64_t first_row, int64_t column) {
  const int64_t at = column / w.format->block_weights * w.format->block_bytes;
  TileRows rows;
  for (int r = 0; r < kTileRows; ++r) {
    const int64_t row = first_row + r < w.rows ? first_row + r : w.rows - 1;
    rows.row[r] = w.data + row * w.row_bytes + at;
  }
  return rows;
}

inline void finish_tile(const Matrix& w, int64_t first_row, int tokens, const float* bias,
                        const float* scratch, float* out, int64_t out_stride) {
  const int rows =
      w.rows - first_row < kTileRows ? static_cast<int>(w.rows - first_row) : kTileRows;
  const Floats add = bias ? load_first(bias + first_row, rows) : broadcast(0.0f);
  for (int t = 0; t < tokens; ++t) {
    Floats total = load(scratch + 16 * t);
    if (bias) total = total + add;
    store_first(out + t * out_stride + first_row, total, rows);
  }
}

// Asks for the bytes of the sixteen rows from `next_row` while others are worked on: rows read side
// by side are no pattern a hardware prefetcher follows. Each chunk fetches its share; more at once
// than a core can have under way are dropped. (Inlined by force: GCC takes a function of prefetches
// for one without effect and drops the call.)
[[gnu::always_inline]] inline void prefetch_rows(const Matrix& w, int64_t next_row, int64_t column,
                                                 int columns) {
  const int64_t bytes = kTileRows * w.row_bytes;
  const uint8_t* next = w.data + next_row * w.row_bytes;
  const int64_t left = (w.rows - next_row) * w.row_bytes;
  const int64_t end = bytes * (column + columns) / w.columns;
  for (int64_t at = bytes * column / w.columns; at < end && at < left; at += 64) {
    __builtin_prefetch(next + at, 0, 2);
  }
}

// `bytes` of sixteen rows to a tile.
inline void pack_rows(const TileRows& rows, int bytes, const uint8_t* pieces, uint8_t* tile) {
  Bytes four[4];
  int at = 0;
  for (; at + 16 <= bytes; at += 16) {
    load_rows(rows.row, pieces ? 16 * pieces[at / 16] : at, four);
    for (int k = 0; k < 4; ++k) store(tile + (at / 4 + k) * kLineBytes, four[k]);
  }
  if (at == bytes) return;
  // The last piece overlaps the one before, so as not to read past the rows.
  load_rows(rows.row, bytes - 16, four);
  const int lines = (bytes - at + 3) / 4;
  for (int k = 4 - lines; k < 4; ++k) {
    const bool whole = bytes % 4 == 0;
    const Bytes next = k < 3 ? shift_left<16>(four[k + 1]) : broadcast_lane(0);
    const Bytes line = whole ? four[k] : shift_right<16>(four[k]) | next;
    store(tile + (at / 4 + k - 4 + lines) * kLineBytes, line);
  }
}

inline int chunk_columns(const Matrix& w, int64_t column) {
  return w.columns - column < kChunkColumns ? static_cast<int>(w.columns - column) : kChunkColumns;
}

inline int chunk_bytes(const Format& format, int columns) {  // of a row
  return columns / format.block_weights * format.block_bytes;
}

// Asks for the tile that follows. For one token or two the hardware is fast enough; with more the
// pauses between two tiles make it stop.
constexpr int kTokensWithPauses = 3;
[[gnu::always_inline]] inline void prefetch_tile(const uint8_t* tile, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(tile + at, 0, 2);
}

// The tile of one chunk of the sixteen rows from `first_row`; those `ahead` rows on come next.
inline void pack_chunk(const Matrix& w, int64_t first_row, int64_t column, int columns, int ahead,
                       uint8_t* tile) {
  prefetch_rows(w, first_row + ahead, column, columns);
  pack_rows(tile_rows(w, first_row, column), chunk_bytes(*w.format, columns), w.format->pieces,
            tile);
}

// All tiles of the sixteen rows, one chunk behind the other.
inline void pack(const Matrix& w, int64_t first_row, uint8_t* tiles) {
  for (int64_t column = 0; column < w.columns; column += kChunkColumns) {
    const int columns = chunk_columns(w, column);
    pack_chunk(w, first_row, column, columns, kTileRows, tiles);
    tiles += tile_bytes(chunk_bytes(*w.format, columns));
  }
}

[[gnu::always_inline]] inline void prefetch_outputs(const float* out, int64_t stride, int tokens) {
  for (int t = 0; t < tokens; ++t) __builtin_prefetch(out + t * stride, 1, 3);
}

// One tile of sixteen rows with a few tokens, without a panel.
inline void multiply_few(const Matrix& w, int64_t first_row, const Activations& x, DotTile dot,
                         const float* bias, float* scratch, float* out, int64_t out_stride) {
  const uint8_t* packed = w.tiles ? w.tiles + first_row / kTileRows * w.tiles_bytes : nullptr;
  alignas(64) uint8_t unpacked[kMaxTileBytes];
  for (int i = 0; i < 16 * x.tokens; ++i) scratch[i] = 0.0f;
  for (int64_t column = 0; column < w.columns; column += kChunkColumns) {
    const int columns = chunk_columns(w, column);
    const uint8_t* tile = packed;
    if (packed) {
      const int64_t bytes = tile_bytes(chunk_bytes(*w.format, columns));
      packed += bytes;
      if (x.tokens >= kTokensWithPauses) prefetch_tile(packed, bytes);
    } else {
      pack_chunk(w, first_row, column, columns, kTileRows, unpacked);
      tile = unpacked;
    }
    const int64_t group = column / x.group * x.tokens;
    dot(tile, columns, x.codes + column * x.tokens, x.scales + column / kBlock * x.tokens,
        x.starts + group, x.sums + group, scratch);
  }
  finish_tile(w, first_row, x.tokens, bias, scratch, out, out_stride);
}

// A stripe of tiles with many tokens: each block of tokens meets all panels of a chunk while it is
// in the nearest cache. Product: PanelProduct or AddProduct.
template <typename Product>
inline void multiply_many(const Matrix& w, int64_t first_row, int64_t end_row, const Activations& x,
                          const Product& product, const float* bias, float* scratch, float* out,
                          int64_t out_stride) {
  const Format& format = *w.format;
  const int64_t totals = product_scratch(x.tokens) / kStripeTiles;
  alignas(64) uint8_t unpacked[kMaxTileBytes];
  Panel panels[kStripeTiles];
  const int tiles = static_cast<int>((end_row - first_row + kTileRows - 1) / kTileRows);
  const uint8_t* packed = w.tiles ? w.tiles + first_row / kTileRows * w.tiles_bytes : nullptr;
  for (int64_t i = 0; i < tiles * totals; ++i) scratch[i] = 0.0f;
  for (int64_t column = 0; column < w.columns; column += kChunkColumns) {
    const int columns = chunk_columns(w, column);
    const int64_t bytes = tile_bytes(chunk_bytes(format, columns));
    for (int i = 0; i < tiles; ++i) {
      const uint8_t* tile = packed + i * w.tiles_bytes;
      if (packed) {
        prefetch_tile(tile + bytes, bytes);
      } else {
        pack_chunk(w, first_row + i * kTileRows, column, columns, tiles * kTileRows, unpacked);
        tile = unpacked;
      }
      format.panel(tile, columns, panels[i]);
      product.prepare(panels[i], columns);
    }
    if (packed) packed += bytes;
    const bool last = column + columns == w.columns;
    for (int t = 0; t < x.tokens; t += kTokens) {
      const int width = block_width(t, x.tokens);
      float* to = out + t * out_stride;
      for (int i = 0; i < tiles; ++i) {
        const int64_t row = first_row + i * kTileRows;
        float* total = scratch + i * totals + 16 * t;
        // The outputs lie far apart. Stored all at once, each would wait for its line of the cache.
        if (last) prefetch_outputs(to + row, out_stride, width);
        product(panel_input(panels[i], column, columns, x, t, width), total);
        if (last) finish_tile(w, row, width, bias, total, to, out_stride);
      }
    }
  }
}

inline void multiply(const Matrix& w, int64_t first_row, int64_t end_row, const Activations& x,
                     const float* bias, float* scratch, float* out, int64_t out_stride) {
  if (w.adds) {
    const AddProduct product(for_tiles(x.tokens));
    multiply_many(w, first_row, end_row, x, product, bias, scratch, out, out_stride);
    return;
  }
  const DotTile dot = x.tokens <= kDotTokens ? w.format->dot[x.tokens - 1] : nullptr;
  if (!dot) {
    const PanelProduct product(*w.format, x.tokens);
    multiply_many(w, first_row, end_row, x, product, bias, scratch, out, out_stride);
    return;
  }
  for (int64_t row = first_row; row < end_row; row += kTileRows) {
    multiply_few(w, row, x, dot, bias, scratch, out, out_stride);
  }
}

// The same in float, for formats without an integer grid. Two interleaved sums (even and odd
// columns) per output and chunk.
struct FloatPanel {
  alignas(64) float values[kChunkColumns][kTileRows];
};

inline void decode_panel(const TileRows& rows, const Format& format, int columns, FloatPanel& out) {
  alignas(64) float decoded[kTileRows][kChunkColumns];
  const int padded = (columns + 15) / 16 * 16;
  for (int r = 0; r < kTileRows; ++r) {
    format.decode(rows.row[r], columns, decoded[r]);
    for (int i = columns; i < padded; ++i) decoded[r][i] = 0.0f;
  }
  for (int column = 0; column < padded; column += 16) {
    transpose(&decoded[0][column], kChunkColumns, out.values[column]);
  }
}

template <int T>
inline void multiply_float_panel(const FloatPanel& panel, int columns, const float* x,
                                 float* totals) {
  Floats even[T];
  Floats odd[T];
  for (int t = 0; t < T; ++t) even[t] = odd[t] = broadcast(0.0f);
  for (int i = 0; i < columns; i += 2) {
    const Floats w0 = load(panel.values[i]);
    const Floats w1 = load(panel.values[i + 1]);
    for (int t = 0; t < T; ++t) {
      even[t] = fma(w0, broadcast(x[i * T + t]), even[t]);
      odd[t] = fma(w1, broadcast(x[(i + 1) * T + t]), odd[t]);
    }
  }
  for (int t = 0; t < T; ++t) {
    store(totals + 16 * t, load(totals + 16 * t) + (even[t] + odd[t]));
  }
}

template <int T = kFloatTokens>
inline void multiply_float_width(int width, const FloatPanel& panel, int columns, const float* x,
                                 float* totals) {
  if constexpr (T > 1) {
    if (width < T) {
      multiply_float_width<T - 1>(width, panel, columns, x, totals);
      return;
    }
  }
  multiply_float_panel<T>(panel, columns, x, totals);
}

inline void multiply_float(const Matrix& w, int64_t first_row, const FloatActivations& x,
                           const float* bias, float* scratch, float* out, int64_t out_stride) {
  FloatPanel panel;
  for (int i = 0; i < 16 * x.tokens; ++i) scratch[i] = 0.0f;
  for (int64_t column = 0; column < w.columns; column += kChunkColumns) {
    const int columns = chunk_columns(w, column);
    prefetch_rows(w, first_row + kTileRows, column, columns);
    decode_panel(tile_rows(w, first_row, column), *w.format, columns, panel);
    for (int t = 0; t < x.tokens; t += kFloatTokens) {
      const int width = block_width(t, x.tokens, kFloatTokens);
      multiply_float_width(width, panel, (columns + 1) / 2 * 2,
                           x.values + t * x.columns + column * width, scratch + 16 * t);
    }
  }
  finish_tile(w, first_row, x.tokens, bias, scratch, out, out_stride);
}

}  // namespace trit::TRIT_ISA
