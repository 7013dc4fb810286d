#include "common/device/cpu/thread_pool.h"

#include <cassert>
#include <chrono>

namespace baton::device {
namespace {

// Long enough to bridge the gap between two operations of a step, short enough that an idle
// worker costs nothing that anybody could measure.
constexpr std::chrono::microseconds kSpin{50};

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until `ready()` or until kSpin has passed; the last value of ready().
template <class Ready>
bool spin_until(Ready&& ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

}  // namespace

ThreadPool::ThreadPool(unsigned threads) {
  assert(threads >= 1);
  workers_.reserve(threads - 1);
  for (unsigned t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  region_started_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(size_t n, Call call, void* task) {
  const std::lock_guard turn(turn_);
  call_ = call;
  task_ = task;
  n_ = n;
  unfinished_.store(n, std::memory_order_relaxed);
  remaining_.store(n, std::memory_order_release);
  epoch_.fetch_add(1);
  // Either this sees the sleeper, or the sleeper saw the new epoch (both are sequentially
  // consistent).
  if (sleepers_.load() > 0) {
    { const std::lock_guard lock(mutex_); }
    region_started_.notify_all();
  }
  while (run_one(0)) {
  }
  wait_until_done();
}

// Claims a task and runs it; false if none is left. A thread that comes late from the region before
// may claim here too: what it claims is a task of the region that runs, because a claim reads what
// that region's caller released.
bool ThreadPool::run_one(unsigned thread) {
  size_t left = remaining_.load(std::memory_order_relaxed);
  do {
    if (left == 0) return false;
  } while (!remaining_.compare_exchange_weak(left, left - 1, std::memory_order_acquire,
                                             std::memory_order_relaxed));
  call_(task_, n_ - left, thread);
  if (unfinished_.fetch_sub(1) == 1 && caller_sleeps_.load()) {
    { const std::lock_guard lock(mutex_); }
    region_done_.notify_all();
  }
  return true;
}

void ThreadPool::wait_until_done() {
  const auto done = [this] { return unfinished_.load() == 0; };
  if (spin_until(done)) return;
  std::unique_lock lock(mutex_);
  caller_sleeps_ = true;
  region_done_.wait(lock, done);
  caller_sleeps_ = false;
}

void ThreadPool::work(unsigned thread) {
  while (true) {
    const uint32_t seen = epoch_.load();
    while (run_one(thread)) {
    }
    if (!wait_for_region(seen)) return;
  }
}

// Waits for an epoch other than `seen` or for the pool's end; false at its end.
bool ThreadPool::wait_for_region(uint32_t seen) {
  const auto started = [this, seen] { return epoch_.load() != seen || stop_.load(); };
  if (!spin_until(started)) {
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    region_started_.wait(lock, started);
    sleepers_.fetch_sub(1);
  }
  return !stop_.load();
}

}  // namespace baton::device
