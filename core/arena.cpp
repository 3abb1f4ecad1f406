#include "arena.h"

#include <cassert>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace trit {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kLargePage = 2 << 20;

}  // namespace

Arena::Arena(int64_t bytes) : bytes_(bytes) {
  const int64_t alignment = bytes < kLargePage ? kLine : kLargePage;
  const size_t size = static_cast<size_t>((bytes + alignment - 1) / alignment * alignment);
  if (size == 0) return;
  memory_ = static_cast<uint8_t*>(std::aligned_alloc(static_cast<size_t>(alignment), size));
  if (!memory_) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kLargePage) madvise(memory_, size, MADV_HUGEPAGE);  // either answer will do
#endif
}

Arena::~Arena() { std::free(memory_); }

uint8_t* Arena::take(int64_t bytes) {
  uint8_t* part = memory_ + taken_;
  taken_ += bytes;
  assert(taken_ <= bytes_ && taken_ % kLine == 0);
  return part;
}

}  // namespace trit
