#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "common/device/device.h"

namespace baton::device {

// What the operations need to know of the GPU they run on.
struct CudaInfo {
  int index = 0;
  int multiprocessors = 0;
  int compute_major = 0, compute_minor = 0;
  size_t memory_bytes = 0, l2_bytes = 0;
  size_t shared_bytes = 0;  // that one block may have
  std::string name;
};

// The stream that a CUDA operation gets: cuda operations downcast to it. It owns the memory that
// operations work in; a stream is used by one thread, and its operations run one after the other.
class CudaStream final : public Stream {
 public:
  explicit CudaStream(const CudaInfo& info);
  ~CudaStream() override;
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  std::unique_ptr<Event> make_event() override;
  void record(Event& event) override;
  void wait(Event& event) override;
  void synchronize() override;
  void notify(std::function<void()> call) override;
  void begin_capture() override;
  std::unique_ptr<Graph> end_capture() override;
  void launch(const Graph& graph) override;

  cudaStream_t handle() const { return stream_; }
  const CudaInfo& info() const { return info_; }
  bool is_capturing() const { return capturing_; }

  // Device memory for an operation's intermediates: at least `bytes`, 256-byte aligned, contents
  // undefined, the next operation's as soon as this one is enqueued. One pool a `Use`, so that an
  // operation may hold two. Grows to the largest request (that allocates, and must not happen while
  // capturing: run once before); what graphs have recorded stays valid. Aborts if memory is short.
  enum class Use { kAttention, kMatmul, kSample, kOther };
  static constexpr size_t kUses = 4;
  std::byte* scratch(Use use, size_t bytes);

  // What an operation keeps from call to call (a library's handle and plans), made by its first
  // call; it goes with the stream.
  std::shared_ptr<void>& state(Use use) { return states_[static_cast<size_t>(use)]; }

  // Host memory for an operation's parameters, which the device reads directly: valid until the
  // stream has passed the operations enqueued before the next call but kStages. Not while
  // capturing.
  std::byte* stage(size_t bytes);
  static constexpr size_t kStages = 8;

 private:
  struct Stage {
    Buffer memory;
    cudaEvent_t passed = nullptr;
    bool in_use = false;
  };

  const CudaInfo& info_;  // the device's
  cudaStream_t stream_ = nullptr;
  bool capturing_ = false;
  std::array<std::vector<Buffer>, kUses> scratch_;  // the last of each is the largest
  std::array<std::shared_ptr<void>, kUses> states_;
  std::array<Stage, kStages> stages_;
  size_t stage_ = kStages - 1;  // the latest
};

// nullptr frees nothing. Both allocate with the plain call.
result<Buffer> allocate_cuda(size_t bytes);
result<Buffer> allocate_pinned(size_t bytes);

}  // namespace baton::device
