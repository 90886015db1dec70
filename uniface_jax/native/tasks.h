// Numbered tasks on XLA's own threads. Which thread takes which task is open, so that what a task
// computes must depend on its number alone: then results are the same on any number of threads.
#ifndef UNIFACE_TASKS_H_
#define UNIFACE_TASKS_H_

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace uniface {

// body(0) ... body(count - 1), once each; returns when all are done. The calling thread works too
// and waits for nothing but tasks that are running, so that busy threads cannot block each other.
template <typename Body>
void RunTasks(const xla::ffi::ThreadPool& pool, int count, const Body& body) {
  struct Progress {
    std::atomic<int> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  const Body* work = &body;  // alive until `done` is `count`, and not looked at after that
  auto take = [progress, work, count] {
    for (int task; (task = progress->next.fetch_add(1)) < count;) {
      (*work)(task);
      progress->done.fetch_add(1);
    }
  };
  const int others = std::min<int>(pool.num_threads(), count) - 1;
  xla::ffi::ThreadPool threads = pool;
  for (int i = 0; i < others; ++i) threads.Schedule([take] { take(); });
  take();
  while (progress->done.load() < count) std::this_thread::yield();
}

}  // namespace uniface

#endif  // UNIFACE_TASKS_H_
