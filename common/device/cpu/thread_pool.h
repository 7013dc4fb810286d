#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace baton::device {

// A fixed set of threads that run short parallel regions; the calling thread is one of them.
//
// A decode step has some two hundred regions in a few milliseconds, so workers spin for a bounded
// time (tens of microseconds) after a region before they sleep, and a region allocates nothing.
// With one thread a region is a plain loop.
//
// Thread: any thread may call parallel_for; regions of different callers take turns. A task must
// not start a region on the same pool and must not throw.
class ThreadPool {
 public:
  // `threads` >= 1 counts the caller: threads - 1 are started. Throws std::system_error.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const { return static_cast<unsigned>(workers_.size()) + 1; }

  // Runs task(i, thread) for each i in [0, n) once, in claim order i = 0, 1, ..., and returns when
  // all are done. `thread` < size() names who runs it: per-thread scratch needs no lock.
  template <class Task>
  void parallel_for(size_t n, Task&& task) {
    if (workers_.empty() || n <= 1) {
      const std::lock_guard turn(turn_);
      for (size_t i = 0; i < n; ++i) task(i, 0u);
      return;
    }
    using T = std::remove_reference_t<Task>;
    run(
        n, [](void* t, size_t i, unsigned thread) { (*static_cast<T*>(t))(i, thread); },
        const_cast<void*>(static_cast<const void*>(&task)));
  }

 private:
  using Call = void (*)(void* task, size_t i, unsigned thread);

  void run(size_t n, Call call, void* task);
  void work(unsigned thread);
  bool run_one(unsigned thread);
  bool wait_for_region(uint32_t seen);
  void wait_until_done();

  std::mutex turn_;  // held by the caller of the region that runs

  // The region. Written before remaining_ is raised; stable while a claimed task is unfinished.
  Call call_ = nullptr;
  void* task_ = nullptr;
  size_t n_ = 0;
  alignas(64) std::atomic<size_t> remaining_{0};   // tasks not yet claimed
  alignas(64) std::atomic<size_t> unfinished_{0};  // tasks not yet done

  // Sleep and wake-up.
  alignas(64) std::atomic<uint32_t> epoch_{0};  // grows with each region
  std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable region_started_;
  std::condition_variable region_done_;

  std::vector<std::thread> workers_;
};

}  // namespace baton::device
