// Buffers that only grow, begin at a line of the cache and end in room that kernels may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace trit {

// Registers of 64 bytes are loaded and stored at half the rate where they lie across two lines.
template <typename T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U>&) {}

  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kLine); }
  bool operator==(const LineAllocator&) const { return true; }
};

template <typename T>
using Buffer = std::vector<T, LineAllocator<T>>;

// Kernels may read or write a register beyond the last value of a buffer.
constexpr size_t kSlack = 64;

template <typename T, typename A>
void fit(std::vector<T, A>& buffer, int64_t values) {
  const size_t needed = static_cast<size_t>(values) + kSlack;
  if (buffer.size() < needed) buffer.resize(needed);
}

}  // namespace trit
