#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/result.h"

namespace baton::device {

// Work enqueued on a stream up to one point. Thread-safe once recorded.
class Event {
 public:
  virtual ~Event() = default;
  virtual bool done() const = 0;  // never blocks
  virtual void wait() = 0;        // blocks the calling thread until done
};

// A recorded sequence of work, launched as one; see Stream::begin_capture. Outlives its launches.
class Graph {
 public:
  virtual ~Graph() = default;
};

// Runs what is enqueued in order. Used by one thread at a time. The CPU runs it inline: an
// enqueue returns when the work is done.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual std::unique_ptr<Event> make_event() = 0;
  virtual void record(Event& event) = 0;
  virtual void wait(Event& event) = 0;  // what is enqueued from here on runs after the event
  virtual void synchronize() = 0;       // blocks the calling thread until all of it has run
  // Calls it once all that is enqueued so far has run, on whatever thread; it is short, does not
  // throw and enqueues nothing. Not while capturing.
  virtual void notify(std::function<void()> call) = 0;

  // Only where DeviceInfo::captures: what is enqueued between the two is recorded and not run.
  // The recording reads and writes the same addresses each time it is launched. No allocation, no
  // synchronize() in between. Null where the device could not make it (the reason is logged).
  virtual void begin_capture() = 0;
  virtual std::unique_ptr<Graph> end_capture() = 0;
  virtual void launch(const Graph& graph) = 0;
};

// Memory of a device. Owns it; frees it on destruction. Move-only. 64-byte aligned or better.
class Buffer {
 public:
  using Free = void (*)(void* data, size_t bytes);
  Buffer() = default;
  Buffer(void* data, size_t bytes, Free free) : data_(data), bytes_(bytes), free_(free) {}
  Buffer(Buffer&& o) noexcept { *this = std::move(o); }
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    std::swap(free_, o.free_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) free_(data_, bytes_);
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Free free_ = nullptr;
};

struct DeviceInfo {
  std::string_view kind;         // "cpu", "cuda"
  bool runs_inline = true;       // enqueue returns when done: results can be read at once
  bool host_addressable = true;  // the host may read and write its buffers directly
  bool captures = false;         // streams can record graphs
  unsigned threads = 1;          // host cores that one operation, or a load, may use
  std::string description;       // of a GPU, for people
  size_t memory_bytes = 0;       // its own, in all; 0: it uses the host's
};

// A device that computes. Thread-safe. Allocation blocks and may fail; nothing allocates per token.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual result<Buffer> allocate(size_t bytes) = 0;  // contents undefined
  // Host memory that the device reads and writes directly (page-locked where that matters).
  virtual result<Buffer> allocate_host(size_t bytes) = 0;
  // Lets the device read and write host memory of somebody else's, which outlives the result;
  // destroying that ends it.
  virtual result<Buffer> lock_host(void* data, size_t bytes) = 0;
  virtual std::unique_ptr<Stream> make_stream() = 0;
  // Each thread that enqueues work of this device calls it first, once.
  virtual void enter_thread() = 0;
  // Enqueues a copy; either side may be host memory, which stays valid until the stream has passed.
  virtual void copy(Stream& stream, void* dst, const void* src, size_t bytes) = 0;
};

}  // namespace baton::device
