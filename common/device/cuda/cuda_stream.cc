#include "common/device/cuda/cuda_stream.h"

#include <algorithm>
#include <cassert>

#include "common/base/log.h"
#include "common/device/cuda/cuda_status.h"

namespace baton::device {
namespace {

class CudaEvent final : public Event {
 public:
  CudaEvent() {
    cuda_must(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~CudaEvent() override { cuda_must(cudaEventDestroy(event_), "cudaEventDestroy"); }
  bool done() const override {
    const cudaError_t error = cudaEventQuery(event_);
    if (error == cudaErrorNotReady) return false;
    cuda_must(error, "cudaEventQuery");
    return true;
  }
  void wait() override { cuda_must(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  cudaEvent_t handle() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaGraph final : public Graph {
 public:
  explicit CudaGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaGraph() override { cuda_must(cudaGraphExecDestroy(graph_), "cudaGraphExecDestroy"); }
  cudaGraphExec_t handle() const { return graph_; }

 private:
  cudaGraphExec_t graph_;
};

}  // namespace

CudaStream::CudaStream(const CudaInfo& info) : info_(info) {
  cuda_must(cudaSetDevice(info.index), "cudaSetDevice");
  cuda_must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  for (Stage& s : stages_) {
    cuda_must(cudaEventCreateWithFlags(&s.passed, cudaEventDisableTiming), "cudaEventCreate");
  }
}

CudaStream::~CudaStream() {
  synchronize();
  for (Stage& s : stages_) cuda_must(cudaEventDestroy(s.passed), "cudaEventDestroy");
  cuda_must(cudaStreamDestroy(stream_), "cudaStreamDestroy");
}

std::unique_ptr<Event> CudaStream::make_event() { return std::make_unique<CudaEvent>(); }

void CudaStream::record(Event& event) {
  cuda_must(cudaEventRecord(static_cast<CudaEvent&>(event).handle(), stream_), "cudaEventRecord");
}

void CudaStream::wait(Event& event) {
  cuda_must(cudaStreamWaitEvent(stream_, static_cast<CudaEvent&>(event).handle()),
            "cudaStreamWaitEvent");
}

void CudaStream::synchronize() {
  cuda_must(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

void CudaStream::notify(std::function<void()> call) {
  assert(!capturing_);
  const auto run = [](void* held) {
    const std::unique_ptr<std::function<void()>> owned(static_cast<std::function<void()>*>(held));
    (*owned)();
  };
  auto held = std::make_unique<std::function<void()>>(std::move(call));
  cuda_must(cudaLaunchHostFunc(stream_, run, held.get()), "cudaLaunchHostFunc");
  (void)held.release();  // run()'s
}

void CudaStream::begin_capture() {
  assert(!capturing_);
  cuda_must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
            "cudaStreamBeginCapture");
  capturing_ = true;
}

std::unique_ptr<Graph> CudaStream::end_capture() {
  assert(capturing_);
  capturing_ = false;
  cudaGraph_t recorded = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &recorded);
  if (ended != cudaSuccess) {
    LOG_WARN("cudaStreamEndCapture: {}; running without a graph", cudaGetErrorString(ended));
    cudaGetLastError();  // it is said; the next call must not find it
    return nullptr;
  }
  cudaGraphExec_t graph = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
  cuda_must(cudaGraphDestroy(recorded), "cudaGraphDestroy");
  if (made != cudaSuccess) {
    LOG_WARN("cudaGraphInstantiate: {}; running without a graph", cudaGetErrorString(made));
    cudaGetLastError();
    return nullptr;
  }
  return std::make_unique<CudaGraph>(graph);
}

void CudaStream::launch(const Graph& graph) {
  cuda_must(cudaGraphLaunch(static_cast<const CudaGraph&>(graph).handle(), stream_),
            "cudaGraphLaunch");
}

std::byte* CudaStream::scratch(Use use, size_t bytes) {
  std::vector<Buffer>& pool = scratch_[static_cast<size_t>(use)];
  if (pool.empty() || pool.back().bytes() < bytes) {
    assert(!capturing_);
    const size_t at_least = pool.empty() ? size_t{1} << 20 : pool.back().bytes() * 2;
    auto grown = allocate_cuda(std::max(bytes, at_least));
    if (!grown) grown = allocate_cuda(bytes);
    if (!grown) cuda_must(cudaErrorMemoryAllocation, "scratch memory of an operation");
    pool.push_back(std::move(*grown));
  }
  return pool.back().data();
}

std::byte* CudaStream::stage(size_t bytes) {
  assert(!capturing_);
  Stage& last = stages_[stage_];
  if (last.in_use) cuda_must(cudaEventRecord(last.passed, stream_), "cudaEventRecord");
  stage_ = (stage_ + 1) % kStages;
  Stage& s = stages_[stage_];
  if (s.in_use) cuda_must(cudaEventSynchronize(s.passed), "cudaEventSynchronize");
  if (s.memory.bytes() < bytes) {
    auto grown = allocate_pinned(std::max(bytes, 2 * s.memory.bytes()));
    if (!grown) cuda_must(cudaErrorMemoryAllocation, "page-locked memory of an operation");
    s.memory = std::move(*grown);
  }
  s.in_use = true;
  return s.memory.data();
}

}  // namespace baton::device
