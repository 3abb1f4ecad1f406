// Runs many small jobs on the pool and counts how often each task ran: exactly once, or it fails.
//
//   threads_stress THREADS SECONDS
//
// Jobs follow each other without a pause, so workers are often a job late, which is where a pool
// goes wrong. Built with -fsanitize=thread by test_threads.py; also runs without.
#include "threads.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  trit::Threads pool(std::atoi(argv[1]));
  const std::chrono::duration<double> limit(std::atof(argv[2]));
  const auto begun = std::chrono::steady_clock::now();
  constexpr int64_t kMost = 64;
  std::vector<int> runs(kMost);  // not atomic: the pool orders a task before the end of its job
  uint32_t seed = 1;
  long jobs = 0;
  while (std::chrono::steady_clock::now() - begun < limit) {
    for (int i = 0; i < 1000; ++i, ++jobs) {
      seed = seed * 1664525u + 1013904223u;
      const int64_t tasks = 1 + (seed >> 8) % (kMost - 1);
      const int64_t grain = 1 + (seed >> 20) % 3;
      pool.run(tasks, grain, [&](int64_t task, int) { ++runs[static_cast<size_t>(task)]; });
      for (int64_t task = 0; task < kMost; ++task) {
        int& ran = runs[static_cast<size_t>(task)];
        if (ran != (task < tasks ? 1 : 0)) {
          std::printf("job %ld: task %ld of %ld ran %d times\n", jobs, static_cast<long>(task),
                      static_cast<long>(tasks), ran);
          return 1;
        }
        ran = 0;
      }
    }
  }
  std::printf("%ld jobs\n", jobs);
  return 0;
}
