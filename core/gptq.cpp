#include "gptq.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

namespace trit {
namespace {

constexpr int kTile = kFactorTile;
constexpr int64_t kTileSize = int64_t{kTile} * kTile;
constexpr int kRows = kMomentColumns;  // of a task

// The lower triangle of a symmetric matrix in tiles; element (i, j) of a tile is at [j][i].
class Tiles {
 public:
  explicit Tiles(int64_t side)
      : side_(side), values_(static_cast<size_t>(side * (side + 1) / 2 * kTileSize)) {}
  int64_t side() const { return side_; }
  double* at(int64_t row, int64_t column) {
    return values_.data() + (row * (row + 1) / 2 + column) * kTileSize;
  }

 private:
  int64_t side_;
  std::vector<double> values_;
};

// The matrix with rows and columns in reverse: what is eliminated first is rounded last. Beyond n
// it is the unit matrix.
void fill(Tiles& tiles, const float* gram, int64_t n, const int32_t* order, double share,
          double floor, int64_t row) {
  for (int64_t column = 0; column <= row; ++column) {
    double* tile = tiles.at(row, column);
    for (int64_t j = 0; j < kTile; ++j) {
      for (int64_t i = 0; i < kTile; ++i) {
        const int64_t a = row * kTile + i, b = column * kTile + j;
        double value = a == b ? 1.0 : 0.0;
        if (a < n && b < n) {
          value = static_cast<double>(gram[int64_t{order[n - 1 - a]} * n + order[n - 1 - b]]);
          if (a == b) value += share * value + floor;
        }
        tile[j * kTile + i] = value;
      }
    }
  }
}

// Cholesky factor of a tile on the diagonal.
bool factorize_tile(double* tile) {
  for (int j = 0; j < kTile; ++j) {
    double* column = tile + j * kTile;
    for (int k = 0; k < j; ++k) {
      const double* other = tile + k * kTile;
      for (int i = j; i < kTile; ++i) column[i] -= other[j] * other[i];
    }
    if (!(column[j] > 0.0) || !std::isfinite(column[j])) return false;
    const double root = std::sqrt(column[j]);
    for (int i = j; i < kTile; ++i) column[i] /= root;
  }
  return true;
}

// tile · (diagonal)⁻ᵀ
void solve_tile(const double* diagonal, double* tile) {
  for (int j = 0; j < kTile; ++j) {
    double* column = tile + j * kTile;
    for (int k = 0; k < j; ++k) {
      const double factor = diagonal[k * kTile + j];
      for (int i = 0; i < kTile; ++i) column[i] -= factor * tile[k * kTile + i];
    }
    for (int i = 0; i < kTile; ++i) column[i] /= diagonal[j * kTile + j];
  }
}

bool cholesky(Threads& threads, const Kernels& kernels, Tiles& tiles) {
  const int64_t side = tiles.side();
  for (int64_t k = 0; k < side; ++k) {
    if (!factorize_tile(tiles.at(k, k))) return false;
    threads.run(side - k - 1, 1,
                [&](int64_t task, int) { solve_tile(tiles.at(k, k), tiles.at(k + 1 + task, k)); });
    threads.run(side - k - 1, 1, [&](int64_t task, int) {
      const int64_t row = side - 1 - task;  // the longest first
      for (int64_t column = k + 1; column <= row; ++column) {
        kernels.subtract_products(tiles.at(row, k), tiles.at(column, k), tiles.at(row, column));
      }
    });
  }
  return true;
}

// Rounds 32 rows, block after block.
class Slab {
 public:
  Slab(const Kernels& kernels, const Feedback& f, int64_t first)
      : kernels_(kernels),
        f_(f),
        first_(first),
        count_(std::min<int64_t>(kRows, f.rows - first)),
        block_(f.format->block_weights),
        row_bytes_(f.columns / block_ * f.format->block_bytes),
        errors_(size(f.columns)),
        weights_(size(block_)),
        carried_(size(block_)),
        places_(static_cast<size_t>(block_)),
        packed_(static_cast<size_t>(kRows * f.format->block_bytes)) {}

  bool run() {
    for (int64_t at = 0; at < f_.columns; at += block_) {
      if (!round(at)) return false;
    }
    for (int64_t row = 0; row < count_; ++row) f_.losses[first_ + row] = losses_[row];
    return true;
  }

 private:
  static size_t size(int64_t columns) { return static_cast<size_t>(columns * kRows); }

  bool round(int64_t at) {
    const int64_t block = f_.order[at] / block_;
    gather(at, block);
    carry(at);
    if (f_.given) copy(block, false);
    const bool ok = kernels_.feed_back(
        {f_.format, static_cast<int>(block_), weights_.data(), carried_.data(),
         f_.panels + (at / kMomentColumns * f_.columns + at) * kMomentColumns,
         f_.columns * kMomentColumns, f_.variances + at, f_.importance + block * block_,
         places_.data(), f_.given, packed_.data(), errors_.data() + at * kRows, losses_});
    if (!f_.given) copy(block, true);
    return ok;
  }

  void gather(int64_t at, int64_t block) {
    std::fill(weights_.begin(), weights_.end(), 0.0f);
    for (int64_t j = 0; j < block_; ++j) {
      const int64_t column = f_.order[at + j];
      places_[static_cast<size_t>(j)] = static_cast<int32_t>(column - block * block_);
      for (int64_t row = 0; row < count_; ++row) {
        weights_[static_cast<size_t>(j * kRows + row)] =
            f_.weights[(first_ + row) * f_.columns + column];
      }
    }
  }

  // What the errors of all columns before `at` add to the weights of this block.
  void carry(int64_t at) {
    std::fill(carried_.begin(), carried_.end(), 0.0f);
    add_products(kernels_, f_.panels, f_.columns, at, block_, errors_.data(), at, carried_.data());
  }

  // A block of each row to the output, or from there.
  void copy(int64_t block, bool out) {
    const int64_t bytes = f_.format->block_bytes;
    for (int64_t row = 0; row < count_; ++row) {
      uint8_t* there = f_.packed + (first_ + row) * row_bytes_ + block * bytes;
      uint8_t* here = packed_.data() + row * bytes;
      std::memcpy(out ? there : here, out ? here : there, static_cast<size_t>(bytes));
    }
  }

  const Kernels& kernels_;
  const Feedback& f_;
  int64_t first_, count_, block_, row_bytes_;
  std::vector<float> errors_, weights_, carried_;
  std::vector<int32_t> places_;
  std::vector<uint8_t> packed_;
  double losses_[kRows] = {};
};

}  // namespace

bool factorize(Threads& threads, const Kernels& kernels, const float* gram, int64_t n,
               const int32_t* order, double share, double floor, float* panels, float* variances) {
  Tiles tiles((n + kTile - 1) / kTile);
  threads.run(tiles.side(), 1,
              [&](int64_t row, int) { fill(tiles, gram, n, order, share, floor, row); });
  if (!cholesky(threads, kernels, tiles)) return false;
  const auto element = [&](int64_t i, int64_t j) {  // in reverse
    return tiles.at(i / kTile, j / kTile)[j % kTile * kTile + i % kTile];
  };
  threads.run(n / kMomentColumns, 1, [&](int64_t panel, int) {
    float* to = panels + panel * n * kMomentColumns;
    for (int64_t k = 0; k < n; ++k) {
      for (int64_t c = 0; c < kMomentColumns; ++c) {
        const int64_t j = panel * kMomentColumns + c;
        const double root = element(n - 1 - j, n - 1 - j);
        to[k * kMomentColumns + c] =
            k > j ? 0.0f : static_cast<float>(element(n - 1 - k, n - 1 - j) / root);
        if (k == j) variances[j] = static_cast<float>(root * root);
      }
    }
  });
  return true;
}

void add_products(const Kernels& kernels, const float* panels, int64_t columns, int64_t first,
                  int64_t count, const float* errors, int64_t end, float* out) {
  constexpr int64_t kProductRows = 256;  // whose products are summed on their own
  for (int64_t panel = 0; panel < count / kMomentColumns; ++panel) {
    const float* from = panels + (first / kMomentColumns + panel) * columns * kMomentColumns;
    for (int64_t k = 0; k < end; k += kProductRows) {
      kernels.add_products(errors + k * kRows, from + k * kMomentColumns,
                           static_cast<int>(std::min(kProductRows, end - k)),
                           out + panel * kMomentColumns * kRows);
    }
  }
}

bool feed_back(Threads& threads, const Kernels& kernels, const Feedback& f) {
  std::atomic<bool> ok{true};
  threads.run((f.rows + kRows - 1) / kRows, 1, [&](int64_t task, int) {
    if (!Slab(kernels, f, task * kRows).run()) ok = false;
  });
  return ok;
}

}  // namespace trit
