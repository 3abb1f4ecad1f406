#include <algorithm>
#include <cstring>
#include <vector>

#include "gptq.h"

namespace trit {
namespace {

constexpr int kRows = kMomentColumns;  // of a task

// Improves 32 rows, block after block.
class Slab {
 public:
  Slab(const Kernels& kernels, const Descent& d, int64_t first)
      : kernels_(kernels),
        d_(d),
        first_(first),
        count_(std::min<int64_t>(kRows, d.rows - first)),
        block_(d.format->block_weights),
        row_bytes_(d.columns / block_ * d.format->block_bytes),
        weights_(static_cast<size_t>(d.columns * kRows)),
        errors_(weights_.size()),
        gradients_(static_cast<size_t>(block_ * kRows)),
        packed_(static_cast<size_t>(kRows * d.format->block_bytes)) {}

  void run() {
    gather();
    for (int sweep = 0; sweep < d_.sweeps; ++sweep) {
      for (int64_t at = 0; at < d_.columns; at += block_) improve(at);
    }
  }

 private:
  uint8_t* row_at(int64_t row) const { return d_.packed + (first_ + row) * row_bytes_; }

  // Weights and errors by column; rows beyond the matrix have none.
  void gather() {
    std::vector<float> values(static_cast<size_t>(d_.columns));
    for (int64_t row = 0; row < count_; ++row) {
      const float* weights = d_.weights + (first_ + row) * d_.columns;
      d_.format->decode(row_at(row), d_.columns, values.data());
      for (int64_t j = 0; j < d_.columns; ++j) {
        const size_t at = static_cast<size_t>(j * kRows + row);
        weights_[at] = weights[j];
        errors_[at] = weights[j] - values[static_cast<size_t>(j)];
      }
    }
  }

  void improve(int64_t at) {
    differentiate(at);
    const int64_t bytes = d_.format->block_bytes, offset = at / block_ * bytes;
    for (int64_t row = 0; row < count_; ++row) {
      std::memcpy(packed_.data() + row * bytes, row_at(row) + offset, static_cast<size_t>(bytes));
    }
    kernels_.descend({d_.format, static_cast<int>(block_), weights_.data() + at * kRows,
                      d_.panels + (at / kMomentColumns * d_.columns + at) * kMomentColumns,
                      d_.columns * kMomentColumns, d_.damping + at, gradients_.data(),
                      errors_.data() + at * kRows, packed_.data()});
    for (int64_t row = 0; row < count_; ++row) {
      std::memcpy(row_at(row) + offset, packed_.data() + row * bytes, static_cast<size_t>(bytes));
    }
  }

  void differentiate(int64_t at) {
    for (int64_t j = 0; j < block_; ++j) {
      for (int64_t row = 0; row < kRows; ++row) {
        const size_t error = static_cast<size_t>((at + j) * kRows + row);
        gradients_[static_cast<size_t>(j * kRows + row)] = d_.damping[at + j] * errors_[error];
      }
    }
    add_products(kernels_, d_.panels, d_.columns, at, block_, errors_.data(), d_.columns,
                 gradients_.data());
  }

  const Kernels& kernels_;
  const Descent& d_;
  int64_t first_, count_, block_, row_bytes_;
  std::vector<float> weights_, errors_, gradients_;
  std::vector<uint8_t> packed_;
};

}  // namespace

void descend(Threads& threads, const Kernels& kernels, const Descent& d) {
  threads.run((d.rows + kRows - 1) / kRows, 1,
              [&](int64_t task, int) { Slab(kernels, d, task * kRows).run(); });
}

}  // namespace trit
