#include "common/device/cpu/cpu_device.h"

#include <cassert>
#include <cstring>
#include <string>

namespace baton::device {
namespace {

// Work on the CPU is done before an event could be recorded after it.
class DoneEvent final : public Event {
 public:
  bool done() const override { return true; }
  void wait() override {}
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(unsigned threads) : info_{.kind = "cpu", .threads = threads}, pool_(threads) {}

  const DeviceInfo& info() const override { return info_; }

  result<Buffer> allocate(size_t bytes) override {
    Buffer buffer = arena_.allocate(bytes);
    if (buffer.data() == nullptr) {
      return error(Errc::kResourceExhausted,
                   "cpu device: cannot allocate " + std::to_string(bytes) + " bytes");
    }
    return buffer;
  }

  result<Buffer> allocate_host(size_t bytes) override { return allocate(bytes); }
  result<Buffer> lock_host(void*, size_t) override { return Buffer(); }

  std::unique_ptr<Stream> make_stream() override { return std::make_unique<CpuStream>(pool_); }

  void enter_thread() override {}

  void copy(Stream&, void* dst, const void* src, size_t bytes) override {
    if (bytes > 0) std::memcpy(dst, src, bytes);
  }

 private:
  DeviceInfo info_;
  HostArena arena_;
  ThreadPool pool_;
};

}  // namespace

std::unique_ptr<Event> CpuStream::make_event() { return std::make_unique<DoneEvent>(); }

void CpuStream::begin_capture() { assert(false); }
std::unique_ptr<Graph> CpuStream::end_capture() { return nullptr; }
void CpuStream::launch(const Graph&) { assert(false); }

std::unique_ptr<Device> make_cpu_device(unsigned threads) {
  return std::make_unique<CpuDevice>(threads);
}

}  // namespace baton::device
