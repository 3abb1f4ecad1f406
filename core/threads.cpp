#include "threads.h"

#include <stdexcept>
#include <string>
#include <system_error>

namespace trit {
namespace {

// A worker spins this often before it parks: about a millisecond, longer than sampling and printing
// take between two tokens, shorter than anything a user would notice on a laptop's battery.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSpins = 100;  // each takes so much longer, and what is looked for is in both loops
#else
constexpr int kSpins = 60000;
#endif

// The place in `next_` while a job replaces another. A worker that is a job late may read the old
// place and then the new number of tasks, which would let it claim tasks of the new job under the
// old generation; closing `next_` first, and ordering the rest behind it, makes that claim fail.
constexpr uint64_t kClosed = 0xffffffffu;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

Threads::Threads(int count) {
  spin_ = count <= static_cast<int>(std::thread::hardware_concurrency());
  try {
    for (int worker = 1; worker < count; ++worker) {
      threads_.emplace_back([this, worker] { loop(worker); });
    }
  } catch (const std::system_error& error) {
    const std::string started = std::to_string(threads_.size() + 1);
    stop();
    throw std::runtime_error("only " + started + " of " + std::to_string(count) +
                             " threads could be started: " + error.what());
  }
}

Threads::~Threads() { stop(); }

void Threads::stop() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// The caller works too and never waits for a worker that has claimed nothing: on a busy machine a
// sleeping worker costs its share of the work, not the time until it is scheduled.
void Threads::run_job(const Job& job) {
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  next_.store(static_cast<uint64_t>(generation) << 32 | kClosed, std::memory_order_relaxed);
  call_.store(job.call, std::memory_order_relaxed);
  context_.store(job.context, std::memory_order_relaxed);
  tasks_.store(job.tasks, std::memory_order_release);
  grain_.store(job.grain, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  next_.store(static_cast<uint64_t>(generation) << 32, std::memory_order_release);
  generation_.store(generation, std::memory_order_release);
  generation_.notify_all();
  work(generation, 0);
  for (int spins = 0;; ++spins) {
    const int64_t done = done_.load(std::memory_order_acquire);
    if (done == job.tasks) return;
    if (spin_ && spins < kSpins) {
      pause();
    } else {
      done_.wait(done, std::memory_order_acquire);
    }
  }
}

void Threads::work(uint32_t generation, int worker) {
  uint64_t next = next_.load(std::memory_order_acquire);
  for (;;) {
    if (static_cast<uint32_t>(next >> 32) != generation) return;
    const int64_t first = static_cast<int64_t>(next & 0xffffffffu);
    const int64_t tasks = tasks_.load(std::memory_order_acquire);
    if (first >= tasks) return;
    const int64_t grain = grain_.load(std::memory_order_acquire);
    const int64_t count = tasks - first < grain ? tasks - first : grain;
    if (!next_.compare_exchange_weak(next, next + static_cast<uint64_t>(count),
                                     std::memory_order_acquire)) {
      continue;
    }
    call_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), first,
                                          first + count, worker);
    if (done_.fetch_add(count, std::memory_order_acq_rel) + count == tasks) done_.notify_one();
    next = next_.load(std::memory_order_acquire);
  }
}

void Threads::loop(int worker) {
  uint32_t seen = 0;
  for (;;) {
    uint32_t generation = generation_.load(std::memory_order_acquire);
    for (int spins = 0; generation == seen; ++spins) {
      if (spin_ && spins < kSpins) {
        pause();
      } else {
        generation_.wait(seen, std::memory_order_acquire);
      }
      generation = generation_.load(std::memory_order_acquire);
    }
    seen = generation;
    if (stop_.load()) return;
    work(generation, worker);
  }
}

}  // namespace trit
