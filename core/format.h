// The row of constants and function pointers that every weight format fills.
//
// A format is a byte layout and a grid. It knows how to take a block apart (codes, scales, mins)
// and put it together again, how to turn a row into floats, and how to lay sixteen rows side by
// side in a *panel*, which is what the matrix products read. The products themselves know no
// format.
//
// This header is compiled once per instruction set (TRIT_ISA names the namespace); everything that
// leaves the namespace is a constant table of `Format`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trit {

constexpr int kTileRows = 16;       // rows of a panel: one int32 lane each of a 512-bit register
constexpr int kChunkColumns = 256;  // columns of a panel
constexpr int kMaxGroups = kChunkColumns / 16;

// Activations are quantized to int8 in blocks of 32 columns, one float scale each, for every
// format.
constexpr int kActivationBlock = 32;

// One block taken apart. Codes are unsigned, as stored: the value of weight i is
//   d · sub_scale[i / group] · (codes[i] − offset) − dmin · sub_min[i / group]
// (or d · table[codes[i]] · … for table formats); formats with one level have sub_scale = sub_min
// = 1. Two-plane formats with an additive minimum (q4_1, q5_1) keep it, negated, in dmin: value =
// d·q + m.
struct Block {
  uint8_t codes[256];
  int16_t sub_scale[16];
  int16_t sub_min[16];
  uint16_t d;     // fp16 bits; of mxfp4 the exponent
  uint16_t dmin;  // fp16 bits
};

// The same of a format whose weights are entries of a codebook, as an encoder has chosen it; the
// value of a weight is d · (2 · scale + 1) · point, in units of the format. An octet is eight
// weights.
struct Entries {
  uint16_t entry[64];  // of octets, or of their halves where the codebook is four wide
  uint8_t signs[32];   // of an octet: weight j is negative where bit j is set; iq1: 1, shift down
  uint8_t scales[16];  // of the groups
  uint16_t d;          // fp16 bits
};

// Sixteen rows × up to 256 columns, four columns of one row per int32 lane:
// codes[column / 4][row][column % 4] is unsigned; its value is
//   scales[column / group][row] · (code − offset) − mins[column / group][row].
struct Panel {
  alignas(64) uint8_t codes[kChunkColumns / 4][kTileRows][4];
  alignas(64) float scales[kMaxGroups][kTileRows];
  alignas(64) float mins[kMaxGroups][kTileRows];  // written only by formats with has_mins
};

// Sixteen rows as they lie in the file, already at the first column wanted.
// Rows beyond the matrix repeat the last one, so sixteen are always there.
struct TileRows {
  const uint8_t* row[kTileRows];
};

// The same bytes side by side, up to 256 columns: a *tile*. Line k holds bytes 4k … 4k + 3 of the
// sixteen rows; an odd pair of bytes at the end has a line of its own, its upper half zero.
// Formats that use a block's bytes in another order have their pieces of sixteen bytes laid in it,
// so that tiles are read from end to end.
constexpr int kLineBytes = 4 * kTileRows;
constexpr int kMaxTileBytes = kChunkColumns / 32 * 34 / 4 * kLineBytes;  // q8_0, the widest

constexpr int64_t tile_bytes(int64_t row_bytes) { return (row_bytes + 3) / 4 * kLineBytes; }

// Tokens that a fused dot multiplies at most.
constexpr int kDotTokens = 4;

// The product of a tile with T tokens, added to totals[T][16], without a panel in between.
// x, scales, starts, sums: see Activations in kernels.h, at the tile's first column.
using DotTile = void (*)(const uint8_t* tile, int columns, const int8_t* x, const float* scales,
                         const int32_t* starts, const float* sums, float* totals);

struct Format {
  const char* name;    // as GGUF names it, in lower case
  uint32_t ggml_type;  // id in a GGUF file
  int block_weights;   // weights per block
  int block_bytes;     // bytes per block
  int group;           // weights that share a scale: 16 or 32 (panel formats)
  int offset;          // what is subtracted from a panel's code
  bool has_mins;       // the panel carries minimums
  int code_bits;       // of a panel's codes; 0 without panels

  // One row of `columns` weights (a multiple of block_weights) to float32.
  void (*decode)(const uint8_t* row, int64_t columns, float* out);

  // One block. Null for formats trit only reads, or only writes.
  void (*unpack)(const uint8_t* block, Block& out);
  void (*pack)(const Block& block, uint8_t* out);
  void (*pack_entries)(const Entries& block, uint8_t* out) = nullptr;

  // The order of a block's pieces of sixteen bytes in a tile; null: as they lie.
  const uint8_t* pieces;

  // `columns` ≤ 256, a multiple of 32 and of block_weights. Null for formats that are multiplied in
  // float (F32, F16, BF16 and the types that trit runs through dequantization).
  void (*panel)(const uint8_t* tile, int columns, Panel& out);

  // dot[T − 1] multiplies with T tokens; null where an instruction set gains nothing by it.
  DotTile dot[kDotTokens];
};

// Whether panels of the format can be multiplied by additions alone (ops/add_product.h).
constexpr bool can_add(const Format& format) {
  return format.code_bits == 2 && format.group == kActivationBlock && !format.has_mins;
}

struct FormatTable {
  const Format* const* formats;
  int count;
};

}  // namespace trit
