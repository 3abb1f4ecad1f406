#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace trit {
namespace {

constexpr int64_t kBlock = 64;
constexpr int kRegisters = 4;  // of four floats

struct Candidate {
  float value;
  int64_t id;
  // Greater ones first, so a heap of candidates has the least at its front.
  bool operator<(const Candidate& other) const {
    return value != other.value ? value > other.value : id < other.id;
  }
};

// The candidates kept so far; once there are enough, only greater ones replace the least.
class Kept {
 public:
  explicit Kept(size_t most) : most_(most) { heap_.reserve(most); }

  bool wants(float value) const { return heap_.size() < most_ || value > heap_.front().value; }

  void add(Candidate one) {
    if (heap_.size() == most_) {
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    heap_.push_back(one);
    std::push_heap(heap_.begin(), heap_.end());
  }

  std::vector<Candidate> sorted() {
    std::sort_heap(heap_.begin(), heap_.end());
    return std::move(heap_);
  }

 private:
  size_t most_;
  std::vector<Candidate> heap_;
};

using Floats = float __attribute__((vector_size(16)));
using Mask = int32_t __attribute__((vector_size(16)));

// The greatest of a block; not a number if any is not.
float block_maximum(const float* block) {
  Floats most[kRegisters];
  Mask bad = {};
  std::memcpy(most, block, sizeof most);
  for (int64_t i = 0; i < kBlock; i += kRegisters * 4) {
    Floats x[kRegisters];
    std::memcpy(x, block + i, sizeof x);
    for (int r = 0; r < kRegisters; ++r) {
      bad |= x[r] != x[r];
      most[r] = x[r] > most[r] ? x[r] : most[r];
    }
  }
  if (bad[0] | bad[1] | bad[2] | bad[3]) return std::numeric_limits<float>::quiet_NaN();
  float values[kRegisters * 4];
  std::memcpy(values, most, sizeof most);
  return *std::max_element(values, values + kRegisters * 4);
}

// What `top_p` leaves of candidates in order: enough to reach that part of all their probability.
size_t nucleus(const std::vector<Candidate>& sorted, double top_p) {
  const double top = sorted.front().value;
  double total = 0;
  for (const Candidate& one : sorted) total += std::exp(one.value - top);
  double sum = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    sum += std::exp(sorted[i].value - top);
    if (sum >= top_p * total) return i + 1;
  }
  return sorted.size();
}

// The greatest `count`, in order; none if any logit is not a number.
std::vector<Candidate> candidates(const float* logits, int64_t size, int64_t count) {
  Kept kept(static_cast<size_t>(count));
  for (int64_t first = 0; first < size; first += kBlock) {
    const int64_t end = std::min(first + kBlock, size);
    if (end - first == kBlock) {  // most blocks hold nothing that is wanted
      const float most = block_maximum(logits + first);
      if (most != most) return {};
      if (!kept.wants(most)) continue;
    }
    for (int64_t id = first; id < end; ++id) {
      if (logits[id] != logits[id]) return {};
      if (kept.wants(logits[id])) kept.add({logits[id], id});
    }
  }
  return kept.sorted();
}

}  // namespace

float greatest(const float* logits, int64_t size, int64_t count, int64_t* ids) {
  const std::vector<Candidate> sorted = candidates(logits, size, count);
  for (const Candidate& one : sorted) *ids++ = one.id;
  return sorted.empty() ? std::numeric_limits<float>::quiet_NaN() : sorted.front().value;
}

Drawn draw(const float* logits, int64_t size, const Draw& settings, double uniform) {
  std::vector<Candidate> sorted = candidates(logits, size, settings.top_k);
  if (sorted.empty()) return {std::numeric_limits<float>::quiet_NaN(), -1};
  const float top = sorted.front().value;
  if (!std::isfinite(top)) return {top, -1};
  if (settings.top_p < 1) sorted.resize(nucleus(sorted, settings.top_p));
  const float bound = static_cast<float>(static_cast<double>(top) + settings.least);
  while (sorted.size() > 1 && sorted.back().value < bound) sorted.pop_back();
  std::vector<double> sums;
  double sum = 0;
  for (const Candidate& one : sorted) {
    sum += std::exp((static_cast<double>(one.value) - top) / settings.temperature);
    sums.push_back(sum);
  }
  const auto at = std::upper_bound(sums.begin(), sums.end() - 1, uniform * sum);
  return {top, sorted[static_cast<size_t>(at - sums.begin())].id};
}

}  // namespace trit
