#pragma once

#include <memory>

#include "common/device/cpu/thread_pool.h"
#include "common/device/device.h"

namespace baton::device {

// The CPU as a device: everything runs inline, operations share one pool of `threads` threads
// (the caller is one of them). At start-up only: throws std::system_error if threads cannot start.
std::unique_ptr<Device> make_cpu_device(unsigned threads);

// The stream that a CPU operation gets; cpu operations downcast to it to reach the pool.
class CpuStream final : public Stream {
 public:
  explicit CpuStream(ThreadPool& pool) : pool_(pool) {}
  std::unique_ptr<Event> make_event() override;
  void record(Event&) override {}
  void synchronize() override {}
  ThreadPool& pool() { return pool_; }

 private:
  ThreadPool& pool_;
};

}  // namespace baton::device
