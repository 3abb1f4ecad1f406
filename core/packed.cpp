#include "packed.h"

#include <cassert>
#include <cstdlib>
#include <new>

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace trit {
namespace {

constexpr int64_t kLargePage = 2 << 20;

}  // namespace

Packed::Packed(int64_t bytes) : bytes_(bytes) {
  const int64_t alignment = bytes < kLargePage ? kLineBytes : kLargePage;
  const size_t size = static_cast<size_t>((bytes + alignment - 1) / alignment * alignment);
  if (size == 0) return;
  memory_ = static_cast<uint8_t*>(std::aligned_alloc(static_cast<size_t>(alignment), size));
  if (!memory_) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kLargePage) madvise(memory_, size, MADV_HUGEPAGE);  // either answer will do
#endif
}

Packed::~Packed() { std::free(memory_); }

uint8_t* Packed::take(int64_t bytes) {
  uint8_t* part = memory_ + taken_;
  taken_ += bytes;
  assert(taken_ <= bytes_ && taken_ % kLineBytes == 0);
  return part;
}

int64_t tiles_bytes(const Matrix& w) {
  const Format& format = *w.format;
  const auto tile = [&](int64_t columns) {
    return tile_bytes(columns / format.block_weights * format.block_bytes);
  };
  return w.columns / kChunkColumns * tile(kChunkColumns) + tile(w.columns % kChunkColumns);
}

int64_t packed_bytes(const Matrix& w) {
  return (w.rows + kTileRows - 1) / kTileRows * tiles_bytes(w);
}

void forget_pages(const Matrix& w) {
#if defined(__linux__) || defined(__APPLE__)
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(w.data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + static_cast<uintptr_t>(w.rows * w.row_bytes)) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
  (void)w;
#endif
}

}  // namespace trit
