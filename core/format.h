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
  uint16_t d;     // fp16 bits
  uint16_t dmin;  // fp16 bits
};

// Sixteen rows × up to 256 columns, four columns of one row per int32 lane:
// codes[column / 4][row][column % 4] is unsigned; its value is
//   scales[column / group][row] · (code − offset) − mins[column / group][row].
struct Panel {
  alignas(64) uint8_t codes[kChunkColumns / 4][kTileRows][4];
  alignas(64) float scales[kMaxGroups][kTileRows];
  alignas(64) float mins[kMaxGroups][kTileRows];  // written only by formats with has_mins
};

// Sixteen rows of a panel as they lie in the file, already at the panel's first column.
// Rows beyond the matrix repeat the last one, so a panel is always full.
struct TileRows {
  const uint8_t* row[kTileRows];
};

struct Format {
  const char* name;    // as GGUF names it, in lower case
  uint32_t ggml_type;  // id in a GGUF file
  int block_weights;   // weights per block
  int block_bytes;     // bytes per block
  int group;           // weights that share a scale: 16 or 32 (panel formats)
  int offset;          // what is subtracted from a panel's code
  bool has_mins;       // the panel carries minimums
  bool wide;           // panel codes exceed 127 (offset 128): no u8×s8 pair sums in 16 bits

  // One row of `columns` weights (a multiple of block_weights) to float32.
  void (*decode)(const uint8_t* row, int64_t columns, float* out);

  // One block. Null for formats trit only reads.
  void (*unpack)(const uint8_t* block, Block& out);
  void (*pack)(const Block& block, uint8_t* out);

  // `columns` ≤ 256, a multiple of 32 and of block_weights. Null for formats that are multiplied in
  // float (F32, F16, BF16 and the types that trit runs through dequantization).
  void (*panel)(const TileRows& rows, int columns, Panel& out);

  // The product of such a panel with one token, added to sixteen totals, without storing the panel.
  // Null where an instruction set gains nothing by it.
  // x, scales, starts, sums: see Activations in kernels.h, at the panel's first column.
  void (*dot)(const TileRows& rows, int columns, const int8_t* x, const float* scales,
              const int32_t* starts, const float* sums, float* totals);
};

struct FormatTable {
  const Format* const* formats;
  int count;
};

}  // namespace trit
