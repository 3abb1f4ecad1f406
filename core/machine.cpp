#include "machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "arena.h"

namespace trit {
namespace {

constexpr int kTries = 3;
constexpr double kTrySeconds = 0.1;
constexpr int64_t kSlabWords = (1 << 20) / sizeof(uint64_t);

double now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

// Eight sums, so that additions do not wait for each other.
uint64_t sum(const uint64_t* words, int64_t count) {
  uint64_t parts[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) parts[j] += words[i + j];
  }
  uint64_t total = 0;
  for (const uint64_t part : parts) total += part;
  return total;
}

}  // namespace

double read_bandwidth(Threads& threads, int64_t bytes) {
  const int64_t slabs = std::max<int64_t>(1, bytes / (kSlabWords * 8));
  const int64_t words = slabs * kSlabWords;
  Arena arena(words * 8);  // in large pages, as packed weights are
  uint64_t* memory = reinterpret_cast<uint64_t*>(arena.take(words * 8));
  // Written first: pages never written are all the same page of zeros.
  threads.run(slabs, 1, [&](int64_t slab, int) {
    std::fill_n(memory + slab * kSlabWords, kSlabWords, static_cast<uint64_t>(slab));
  });
  std::atomic<uint64_t> total{0};  // keeps the reading from being left out
  double best = 0.0;
  for (int i = 0; i < kTries; ++i) {
    const double begun = now();
    threads.run(slabs, 1, [&](int64_t slab, int) {
      total.fetch_add(sum(memory + slab * kSlabWords, kSlabWords), std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>(words) * 8 / (now() - begun));
  }
  const uint64_t expected = kTries * static_cast<uint64_t>(kSlabWords) *
                            (static_cast<uint64_t>(slabs) * static_cast<uint64_t>(slabs - 1) / 2);
  return total.load() == expected ? best : 0.0;
}

double int8_rate(Threads& threads, const Kernels& kernels) {
  int64_t iterations = 1;
  for (;;) {  // as many as one thread does in the time of a try
    const double begun = now();
    kernels.int8_loop(iterations);
    if (now() - begun > kTrySeconds / 4) break;
    iterations *= 2;
  }
  double best = 0.0;
  const int64_t parts = 4;  // per thread, so that a thread that is held up does not hold up all
  for (int i = 0; i < kTries; ++i) {
    std::atomic<int64_t> products{0};
    const double begun = now();
    threads.run(threads.count() * parts, 1, [&](int64_t, int) {
      products.fetch_add(kernels.int8_loop(iterations), std::memory_order_relaxed);
    });
    best = std::max(best, 2.0 * static_cast<double>(products.load()) / (now() - begun));
  }
  return best;
}

}  // namespace trit
