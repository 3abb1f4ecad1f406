// Buffers that only grow, and end in room that kernels may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trit {

// Kernels may read or write a register beyond the last value of a buffer.
constexpr size_t kSlack = 64;

template <typename T>
void fit(std::vector<T>& buffer, int64_t values) {
  const size_t needed = static_cast<size_t>(values) + kSlack;
  if (buffer.size() < needed) buffer.resize(needed);
}

}  // namespace trit
