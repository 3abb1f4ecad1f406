#include "threads.h"

namespace trit {
namespace {

// A worker spins this often before it parks: about 50 µs, longer than the gap between two products
// of one token, shorter than anything a user would notice on a laptop's battery.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

} // namespace

Threads::Threads(int count) {
  spin_ = count <= static_cast<int>(std::thread::hardware_concurrency());
  for (int worker = 1; worker < count; ++worker) {
    threads_.emplace_back([this, worker] { loop(worker); });
  }
}

Threads::~Threads() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Threads::run_job(const Job& job) {
  job_ = job;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  work(0);
  for (int spins = 0;; ++spins) {
    const int busy = busy_.load(std::memory_order_acquire);
    if (busy == 0) return;
    if (spin_ && spins < kSpins) {
      pause();
    } else {
      busy_.wait(busy, std::memory_order_acquire);
    }
  }
}

void Threads::work(int worker) {
  for (;;) {
    const int64_t first = next_.fetch_add(job_.grain, std::memory_order_relaxed);
    if (first >= job_.tasks) return;
    const int64_t last = first + job_.grain < job_.tasks ? first + job_.grain : job_.tasks;
    job_.call(job_.context, first, last, worker);
  }
}

void Threads::loop(int worker) {
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; generation_.load(std::memory_order_acquire) == seen; ++spins) {
      if (spin_ && spins < kSpins) {
        pause();
      } else {
        generation_.wait(seen, std::memory_order_acquire);
      }
    }
    ++seen;
    if (stop_.load()) return;
    work(worker);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

} // namespace trit
