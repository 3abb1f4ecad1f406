// A pool of threads that claim numbered tasks. Which thread runs a task never changes its result.
#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>
#include <thread>
#include <vector>

namespace trit {

class Threads {
 public:
  // `count` workers, the calling thread included. Throws std::runtime_error when the system gives
  // fewer.
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls f(task, worker) for every task below `tasks`; returns when all are done. Workers claim
  // `grain` consecutive tasks at a time. f must not throw.
  template <typename F>
  void run(int64_t tasks, int64_t grain, F&& f) {
    if (tasks <= 0) return;
    if (threads_.empty() || tasks <= grain) {
      for (int64_t i = 0; i < tasks; ++i) f(i, 0);
      return;
    }
    const auto call = [](void* context, int64_t first, int64_t last, int worker) {
      for (int64_t i = first; i < last; ++i) (*static_cast<F*>(context))(i, worker);
    };
    assert(tasks < int64_t{1} << 31);
    run_job({call, &f, tasks, grain});
  }

 private:
  struct Job {
    void (*call)(void* context, int64_t first, int64_t last, int worker);
    void* context;
    int64_t tasks;
    int64_t grain;
  };

  void stop();
  void run_job(const Job& job);
  void work(uint32_t generation, int worker);
  void loop(int worker);

  // Written between jobs, read by workers that may be a job late: hence atomic. A claim only
  // succeeds while `next_` still carries the worker's generation, and then the job cannot be
  // replaced.
  std::atomic<void (*)(void*, int64_t, int64_t, int)> call_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int64_t> tasks_{0};
  std::atomic<int64_t> grain_{1};

  bool spin_ = true;
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint64_t> next_{0};  // generation << 32 | first task not yet claimed
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int64_t> done_{0};  // tasks
  std::vector<std::thread> threads_;
};

}  // namespace trit
