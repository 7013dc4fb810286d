#pragma once

#include <array>
#include <memory>
#include <vector>

#include "common/device/cpu/memory.h"
#include "common/device/cpu/thread_pool.h"
#include "common/device/device.h"

namespace baton::device {

// The CPU as a device: everything runs inline, operations share one pool of `threads` threads
// (the caller is one of them). At start-up only: throws std::system_error if threads cannot start.
std::unique_ptr<Device> make_cpu_device(unsigned threads);

// The stream that a CPU operation gets; cpu operations downcast to it to reach the pool and the
// scratch memory, which the stream owns.
class CpuStream final : public Stream {
 public:
  explicit CpuStream(ThreadPool& pool) : pool_(pool), scratch_(pool.size()) {}
  std::unique_ptr<Event> make_event() override;
  void record(Event&) override {}
  void wait(Event&) override {}
  void synchronize() override {}
  void notify(std::function<void()> call) override { call(); }
  void begin_capture() override;  // never called: DeviceInfo::captures is false
  std::unique_ptr<Graph> end_capture() override;
  void launch(const Graph&) override;
  ThreadPool& pool() { return pool_; }
  // Of the thread that a task was given; used inside that task only.
  Scratch& scratch(unsigned thread) { return scratch_[thread]; }
  // Of the operation as a whole, two of them: they outlive its regions, the stream's own thread
  // takes them.
  Scratch& shared_scratch(unsigned i) { return shared_[i]; }

 private:
  ThreadPool& pool_;
  std::vector<Scratch> scratch_;
  std::array<Scratch, 2> shared_;
};

}  // namespace baton::device
