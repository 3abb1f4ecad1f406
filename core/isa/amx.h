// AMX: eight tile registers of 16 rows × 64 bytes, and a product of two of them.
//
// Each thread has tile registers of its own, which it may use only while they have a shape and
// after the operating system has given the process leave (dispatch.cpp asks). GCC 12's intrinsics
// do not say that they read memory, so those here do.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa/isa.h"

namespace trit::TRIT_ISA {

// The shapes of the registers below. A product of tiles is
//   sums[token][row] += Σ over columns codes[token][column] · weights[column / 4][row][column % 4]
// of signed bytes, exact; sixteen rows of int32 make one line of 64 bytes.
constexpr int kSumTiles = 4;     // registers 0 … 3
constexpr int kCodesTile = 4;    // and 5
constexpr int kWeightsTile = 6;  // and 7

// Gives the registers the shapes for so many tokens (at most 16) and columns (at most 64, in
// fours) until it goes out of scope.
class TileShapes {
 public:
  TileShapes(int tokens, int columns) {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int i = 0; i < 8; ++i) {
      const bool codes = i == kCodesTile || i == kCodesTile + 1;
      shapes.row_bytes[i] = static_cast<uint16_t>(codes ? columns : 64);
      shapes.rows[i] = static_cast<uint8_t>(i < kWeightsTile ? tokens : columns / 4);
    }
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  ~TileShapes() { asm volatile("tilerelease"); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
};

template <int tile>
[[gnu::always_inline]] inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
[[gnu::always_inline]] inline void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
[[gnu::always_inline]] inline void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}

template <int sums, int codes, int weights>
[[gnu::always_inline]] inline void multiply_tiles() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(codes), "i"(weights));
}

inline Floats load_ints(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }

inline Bytes subtract_bytes(Bytes a, uint8_t b) {
  return {_mm512_sub_epi8(a.v, _mm512_set1_epi8(static_cast<char>(b)))};
}

}  // namespace trit::TRIT_ISA
