#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "common/device/cpu/cpu_device.h"
#include "common/device/device.h"
#include "common/ops/ops.h"
#include "tests/fakes/fake_gpu_memory.h"

namespace baton::device {

// A device that behaves as a GPU does, and is strict: streams run behind the host, each on a thread
// of its own; the host cannot read or write its memory; it records graphs. What it computes is the
// CPU's, bit for bit (fake_gpu_ops). Whoever breaks a rule of device.h or ops.h kills the process
// with a sentence, or is seen by the thread sanitizer.
class FakeGpu final : public Device {
 public:
  explicit FakeGpu(uint64_t seed = 0);

  const DeviceInfo& info() const override { return info_; }
  result<Buffer> allocate(size_t bytes) override;
  result<Buffer> allocate_host(size_t bytes) override;
  result<Buffer> lock_host(void* data, size_t bytes) override;
  std::unique_ptr<Stream> make_stream() override;
  void enter_thread() override {}
  void copy(Stream& stream, void* dst, const void* src, size_t bytes) override;

  // From any thread. While held, streams finish what they are at and begin nothing more.
  void hold();
  void let_go();
  // Holds itself while the export of that number, from now on, runs.
  void hold_at_export(int number) { exports_to_hold_ = number; }
  void wait_until_held();
  // Now and then something waits for up to so long before it runs.
  void set_jitter(std::chrono::microseconds most) { jitter_us_ = static_cast<int>(most.count()); }
  void set_captures_fail(bool fail) { captures_fail_ = fail; }

  // What has been enqueued so far.
  struct Counts {
    std::atomic<uint64_t> copies{0}, samples{0}, exports{0}, imports{0};
    std::atomic<uint64_t> captures{0}, launches{0};
  };
  Counts& counts() { return counts_; }

  void exporting() {  // an operation, when it runs
    if (exports_to_hold_ > 0 && --exports_to_hold_ == 0) hold();
  }

 private:
  friend class FakeStream;
  void before_work(std::mt19937_64& random);
  void must_not_capture(const char* what) const;

  const DeviceInfo info_;
  const uint64_t seed_;
  const std::shared_ptr<FakeGpuMemory> memory_;
  const std::unique_ptr<Device> cpu_;  // one thread a stream computes
  std::atomic<uint64_t> streams_{0};
  std::atomic<int> jitter_us_{0}, capturing_{0};
  std::atomic<int> exports_to_hold_{0};
  std::atomic<bool> captures_fail_{false};
  Counts counts_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
};

// What operations of fake_gpu_ops() get. Its end waits for all it has.
class FakeStream final : public Stream {
 public:
  using Work = std::function<void(CpuStream&)>;

  FakeStream(FakeGpu& gpu, uint64_t seed);
  ~FakeStream() override;
  std::unique_ptr<Event> make_event() override;
  void record(Event& event) override;
  void wait(Event& event) override;
  void synchronize() override;
  void notify(std::function<void()> call) override;
  void begin_capture() override;
  std::unique_ptr<Graph> end_capture() override;
  void launch(const Graph& graph) override;

  // Runs it behind all before, on the stream's thread; or records it.
  void enqueue(Work work);
  void must_not_capture(const char* what) const;
  bool is_capturing() const { return capturing_; }
  FakeGpu& gpu() { return gpu_; }
  FakeGpuMemory& memory() { return *gpu_.memory_; }

 private:
  void run();

  FakeGpu& gpu_;
  std::mt19937_64 random_;  // the thread's
  const std::unique_ptr<Stream> cpu_;
  bool capturing_ = false;
  std::vector<Work> recorded_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  uint64_t enqueued_ = 0, done_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace baton::device

namespace baton::ops {

// The CPU's operations for streams of a FakeGpu. What an operation may read only while it is being
// enqueued is gone when it runs; what the device is to read is read then, and may be anything but
// the host's pageable memory.
Ops fake_gpu_ops();

}  // namespace baton::ops
