// The product by additions, of one instruction set: as a function whose assembly is read, and as a
// program that compares its sums with those of plain integers (tests/core/test_ternary.py).
#include "ops/add_product.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

using namespace trit;
using namespace trit::TRIT_ISA;

extern "C" [[gnu::flatten]] void add_panel(const PanelInput& in, bool tiles, float* totals) {
  AddProduct{tiles}(in, totals);
}

namespace {

constexpr int kColumns = kChunkColumns;
constexpr int kBlocks = kColumns / kActivationBlock;

// Where the code of `column` of token t is among those of `width` tokens.
int place(int column, int t, int width, bool tiles) {
  const int block = column / kActivationBlock;
  const int inside = column % kActivationBlock;
  if (tiles) return (block * width + t) * kActivationBlock + inside;
  return (column / 4 * width + t) * 4 + column % 4;
}

// Whether the products of `width` tokens with scales of 1 are the integers they should be.
bool right(int width, bool tiles, std::mt19937& random) {
  static Panel panel;
  std::vector<int8_t> x(static_cast<size_t>(kColumns * width));
  std::vector<int32_t> starts(static_cast<size_t>(kBlocks * width), kSumZero);
  const std::vector<float> ones(static_cast<size_t>(kBlocks * width), 1.0f);
  std::vector<float> totals(static_cast<size_t>(width * kTileRows), 3.0f);
  std::vector<float> expected = totals;
  for (auto& group : panel.scales) std::fill(std::begin(group), std::end(group), 1.0f);
  for (auto& line : panel.codes) {
    for (auto& row : line) {
      for (uint8_t& code : row) code = random() & 3;
    }
  }
  for (int column = 0; column < kColumns; ++column) {
    for (int t = 0; t < width; ++t) {
      const int value = width == 1 ? 127 : static_cast<int>(random() % 255) - 127;
      x[static_cast<size_t>(place(column, t, width, tiles))] = static_cast<int8_t>(value);
      starts[static_cast<size_t>(column / kActivationBlock * width + t)] -= value;
      for (int row = 0; row < kTileRows; ++row) {
        const int weight = panel.codes[column / 4][row][column % 4] - 1;
        expected[static_cast<size_t>(t * kTileRows + row)] += static_cast<float>(weight * value);
      }
    }
  }
  const PanelInput in{panel, kColumns, width, x.data(), ones.data(), starts.data(), ones.data()};
  add_panel(in, tiles, totals.data());
  return totals == expected;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  int wrong = 0;
  for (int width = 1; width <= 16; ++width) {
    for (const bool tiles : {false, true}) {
      if (right(width, tiles, random)) continue;
      std::printf("%d tokens, %s\n", width, tiles ? "tiles" : "lines");
      ++wrong;
    }
  }
  std::printf("32 products, %d wrong\n", wrong);
  return wrong != 0;
}
