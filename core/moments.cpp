#include "moments.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace trit {
namespace {

constexpr int64_t kStrip = 128;  // columns of a task
constexpr int64_t kSide = kMomentBlock / kMomentColumns;

// Columns [32 · panel, …) of all rows side by side, zeros beyond the last.
void lay_panel(const float* x, int64_t rows, int64_t columns, int64_t panel, float* out) {
  const int64_t first = panel * kMomentColumns;
  const int64_t count = std::min<int64_t>(kMomentColumns, columns - first);
  for (int64_t row = 0; row < rows; ++row) {
    float* to = out + row * kMomentColumns;
    std::memcpy(to, x + row * columns + first, static_cast<size_t>(count) * sizeof(float));
    std::fill(to + count, to + kMomentColumns, 0.0f);
  }
}

void add_tile(const float* tile, int64_t columns, int64_t row, int64_t column, float* gram) {
  const int64_t rows = std::min<int64_t>(kMomentColumns, columns - row);
  const int64_t width = std::min<int64_t>(kMomentColumns, columns - column);
  for (int64_t j = 0; j < rows; ++j) {
    float* to = gram + (row + j) * columns + column;
    for (int64_t i = 0; i < width; ++i) to[i] += tile[j * kMomentColumns + i];
  }
}

}  // namespace

void add_squares(Threads& threads, const Kernels& kernels, const float* x, int64_t rows,
                 int64_t columns, double* sums) {
  threads.run((columns + kStrip - 1) / kStrip, 1, [&](int64_t task, int) {
    const int64_t first = task * kStrip;
    kernels.add_squares(x + first, columns, rows, std::min(kStrip, columns - first), sums + first);
  });
}

void add_gram(Threads& threads, const Kernels& kernels, const float* x, int64_t rows,
              int64_t columns, float* gram) {
  const int64_t panels = (columns + kMomentColumns - 1) / kMomentColumns;
  const int64_t panel_floats = rows * kMomentColumns;
  std::vector<float> laid(static_cast<size_t>(panels * panel_floats));
  threads.run(panels, 1, [&](int64_t panel, int) {
    lay_panel(x, rows, columns, panel, laid.data() + panel * panel_floats);
  });
  // Blocks of four by four panels: what two of them need stays in the second-level cache.
  std::vector<std::pair<int64_t, int64_t>> blocks;
  for (int64_t i = 0; i < panels; i += kSide) {
    for (int64_t j = i; j < panels; j += kSide) blocks.emplace_back(i, j);
  }
  threads.run(static_cast<int64_t>(blocks.size()), 1, [&](int64_t task, int) {
    constexpr int64_t kTile = int64_t{kMomentColumns} * kMomentColumns;
    alignas(64) float tiles[kSide * kSide * kTile] = {};
    const auto [top, left] = blocks[static_cast<size_t>(task)];
    const int64_t height = std::min(kSide, panels - top);
    const int64_t width = std::min(kSide, panels - left);
    for (int64_t row = 0; row < rows; row += kMomentRows) {
      const int count = static_cast<int>(std::min<int64_t>(kMomentRows, rows - row));
      for (int64_t j = 0; j < height; ++j) {
        for (int64_t i = 0; i < width; ++i) {
          kernels.add_products(laid.data() + (left + i) * panel_floats + row * kMomentColumns,
                               laid.data() + (top + j) * panel_floats + row * kMomentColumns, count,
                               tiles + (j * kSide + i) * kTile);
        }
      }
    }
    for (int64_t j = 0; j < height; ++j) {
      for (int64_t i = 0; i < width; ++i) {
        add_tile(tiles + (j * kSide + i) * kTile, columns, (top + j) * kMomentColumns,
                 (left + i) * kMomentColumns, gram);
      }
    }
  });
}

}  // namespace trit
