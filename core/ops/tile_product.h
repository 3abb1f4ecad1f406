// The product of a panel with a block of tokens on AMX tiles, for more than kDotTokens tokens. Same
// sums, same order, same bits as in vector registers (panel_product.h).
//
// A group of columns is one product of tiles: the codes of sixteen tokens by the sixteen rows of a
// panel, whose layout is that of a weights tile. The sums go through memory to the float units,
// while the products of the next blocks are under way.
#pragma once

#include <cassert>
#include <optional>

#include "format.h"
#include "isa/amx.h"
#include "ops/panel_input.h"

namespace trit::TRIT_ISA {

// The sums of blocks of 32 columns, each in its groups; several blocks are under way at a time.
template <int Group>
struct TileSums {
  static constexpr int kGroups = kActivationBlock / Group;
  static constexpr int kBlocks = kSumTiles / kGroups;  // under way, or not yet read

  alignas(64) int32_t sums[kSumTiles][16][kTileRows];

  // Starts the products of one block, codes [width][32] by lines [8][16][4].
  template <int place>
  [[gnu::always_inline]] void start(const int8_t* codes, const uint8_t* lines) {
    start_group<place * kGroups>(codes, lines);
    if constexpr (kGroups == 2) {
      start_group<place * kGroups + 1>(codes + Group, lines + Group / 4 * kLineBytes);
    }
  }

 private:
  template <int tile>
  [[gnu::always_inline]] void start_group(const int8_t* codes, const uint8_t* lines) {
    constexpr int kCodes = kCodesTile + tile % 2;
    constexpr int kWeights = kWeightsTile + tile % 2;
    clear_tile<tile>();
    load_tile<kCodes>(codes, kActivationBlock);
    load_tile<kWeights>(lines, kLineBytes);
    multiply_tiles<tile, kCodes, kWeights>();
    store_tile<tile>(sums[tile], kLineBytes);
  }
};

// totals[T][16] += panel · x for T tokens. Those beyond `width` give numbers that nobody reads.
template <int T, int Group, bool Mins>
inline void multiply_tokens(const PanelInput& in, float* totals) {
  using Sums = TileSums<Group>;
  constexpr int kGroups = Sums::kGroups;
  constexpr int kAhead = Sums::kBlocks / 2;
  const int blocks = in.columns / kActivationBlock;
  const int width = in.width;
  Sums products;
  Floats total[T];
  TRIT_UNROLL for (int t = 0; t < T; ++t) total[t] = load(totals + 16 * t);

  const auto start = [&]<int place>(int block) __attribute__((always_inline)) {
    if (block >= blocks) return;
    products.template start<place>(in.codes + int64_t{block} * kActivationBlock * width,
                                   &in.panel.codes[block * kActivationBlock / 4][0][0]);
  };
  const auto add = [&]<int place>(int block) __attribute__((always_inline)) {
    if (block >= blocks) return;
    start.template operator()<(place + kAhead) % Sums::kBlocks>(block + kAhead);
    Floats scale[kGroups];
    for (int g = 0; g < kGroups; ++g) scale[g] = load(in.panel.scales[block * kGroups + g]);
    TRIT_UNROLL for (int t = 0; t < T; ++t) {
      Floats part = load_ints(products.sums[place * kGroups][t]) * scale[0];
      if constexpr (kGroups == 2) {
        part = fma(load_ints(products.sums[place * kGroups + 1][t]), scale[1], part);
      }
      total[t] = fma(part, broadcast(in.scales[block * width + t]), total[t]);
    }
    if constexpr (Mins) {
      for (int g = block * kGroups; g < (block + 1) * kGroups; ++g) {
        const Floats min = load(in.panel.mins[g]);
        TRIT_UNROLL for (int t = 0; t < T; ++t) {
          total[t] = fnma(min, broadcast(in.sums[g * width + t]), total[t]);
        }
      }
    }
  };

  start.template operator()<0>(0);
  if constexpr (kAhead == 2) start.template operator()<1>(1);
  for (int block = 0; block < blocks; block += Sums::kBlocks) {
    add.template operator()<0>(block);
    add.template operator()<1>(block + 1);
    if constexpr (Sums::kBlocks == 4) {
      add.template operator()<2>(block + 2);
      add.template operator()<3>(block + 3);
    }
  }
  TRIT_UNROLL for (int t = 0; t < T; ++t) store(totals + 16 * t, total[t]);
}

template <int Group, bool Mins>
inline void multiply_width(const PanelInput& in, float* totals) {
  if (in.width > 8) {
    multiply_tokens<16, Group, Mins>(in, totals);
  } else {
    multiply_tokens<8, Group, Mins>(in, totals);
  }
}

// What the tiles of a matrix have in common. For more than kDotTokens tokens: fewer are multiplied
// without a panel, by the dots that every format has here.
class PanelProduct {
 public:
  PanelProduct(const Format& format, int tokens)
      : multiply_(choose(format)), offset_(static_cast<uint8_t>(format.offset)) {
    if (tokens > kDotTokens) shapes_.emplace(tokens < 16 ? tokens : 16, format.group);
  }

  // Tiles multiply signed bytes: the panel's codes less the format's offset.
  void prepare(Panel& panel, int columns) const {
    if (offset_ == 0) return;
    for (int line = 0; line < columns / 4; ++line) {
      uint8_t* codes = &panel.codes[line][0][0];
      store(codes, subtract_bytes(load_bytes(codes), offset_));
    }
  }

  // totals[width][16] += panel · x. Reads codes as if width were sixteen, all else, and writes, as
  // if it were a multiple of eight.
  void operator()(const PanelInput& in, float* totals) const {
    assert(shapes_);
    multiply_(in, totals);
  }

 private:
  using Multiply = void (*)(const PanelInput&, float*);

  static Multiply choose(const Format& format) {
    if (format.group == 16) {
      return format.has_mins ? multiply_width<16, true> : multiply_width<16, false>;
    }
    return format.has_mins ? multiply_width<32, true> : multiply_width<32, false>;
  }

  Multiply multiply_;
  uint8_t offset_;
  std::optional<TileShapes> shapes_;
};

}  // namespace trit::TRIT_ISA
