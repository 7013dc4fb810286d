#include "common/ops/cuda/blas.h"

#include <cublasLt.h>

#include <cassert>
#include <cstdlib>
#include <limits>
#include <memory>
#include <unordered_map>
#include <vector>

#include "common/base/log.h"
#include "common/device/cuda/cuda_status.h"

namespace baton::ops {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA asks for on Hopper
constexpr size_t kMaxPlans = 4096;                    // prefill chunks come in many sizes
// Up to so many rows the kernel that is best by the clock is looked for, among as many as the
// heuristics find worth a try: these are the sizes of decode, which come back step after step.
constexpr int64_t kTunedRows = 128;
constexpr int kCandidates = 8;
// The size whose kernel serves every size, where all must use one: small enough for decode.
constexpr int64_t kCommonRows = 128;

void blas_must(cublasStatus_t status, const char* call, const Product& p) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  LOG_ERROR("{}: {} for m={} n={} k={}; this process ends", call, cublasLtGetStatusString(status),
            p.m, p.n, p.k);
  spdlog::shutdown();
  std::abort();
}

// cuBLAS counts columns first: out^T [n x m] = w^T' * x', with w as k x n and x as k x m.
struct Layouts {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, out = nullptr;

  explicit Layouts(const Product& p) {
    const cudaDataType_t half = p.half == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
    blas_must(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate", p);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    blas_must(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                             sizeof(transposed)),
              "cublasLtMatmulDescSetAttribute", p);
    layout(&w, half, p.k, p.n, p.k, p);
    layout(&x, half, p.k, p.m, p.x_stride, p);
    layout(&out, p.out_f32 ? CUDA_R_32F : half, p.n, p.m, p.out_stride, p);
  }
  ~Layouts() {
    cublasLtMatrixLayoutDestroy(out);
    cublasLtMatrixLayoutDestroy(x);
    cublasLtMatrixLayoutDestroy(w);
    cublasLtMatmulDescDestroy(operation);
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;

 private:
  static void layout(cublasLtMatrixLayout_t* to, cudaDataType_t type, int64_t rows, int64_t cols,
                     int64_t stride, const Product& p) {
    blas_must(cublasLtMatrixLayoutCreate(to, type, static_cast<uint64_t>(rows),
                                         static_cast<uint64_t>(cols), stride),
              "cublasLtMatrixLayoutCreate", p);
  }
};

struct Key {
  int64_t m, n, k, x_stride, out_stride;
  uint64_t flags;
  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    size_t h = 0;
    for (const int64_t v : {key.m, key.n, key.k, key.x_stride, key.out_stride}) {
      h = h * 0x9e3779b97f4a7c15u + static_cast<size_t>(v);
    }
    return h * 0x9e3779b97f4a7c15u + key.flags;
  }
};

struct Plan {
  std::unique_ptr<Layouts> layouts;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace = 0;
};

using Candidate = cublasLtMatmulHeuristicResult_t;

// Times what a stream does in between.
class EventPair {
 public:
  EventPair() {
    device::cuda_must(cudaEventCreate(&begin_), "cudaEventCreate");
    device::cuda_must(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~EventPair() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  EventPair(const EventPair&) = delete;
  EventPair& operator=(const EventPair&) = delete;

  void begin(CudaStream& stream) const {
    device::cuda_must(cudaEventRecord(begin_, stream.handle()), "cudaEventRecord");
  }
  float end_ms(CudaStream& stream) const {
    float ms = 0;
    device::cuda_must(cudaEventRecord(end_, stream.handle()), "cudaEventRecord");
    device::cuda_must(cudaEventSynchronize(end_), "cudaEventSynchronize");
    device::cuda_must(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return ms;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class Blas {
 public:
  Blas() {
    const cublasStatus_t status = cublasLtCreate(&handle_);
    blas_must(status, "cublasLtCreate", {});
  }
  ~Blas() { cublasLtDestroy(handle_); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  void multiply(CudaStream& stream, const Product& p, const Layouts& l,
                const cublasLtMatmulAlgo_t& algorithm, size_t workspace_bytes) const {
    const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
    std::byte* workspace = stream.scratch(CudaStream::Use::kMatmul, kWorkspaceBytes);
    blas_must(cublasLtMatmul(handle_, l.operation, &one, p.w, l.w, p.x, l.x, &beta, p.out, l.out,
                             p.out, l.out, &algorithm, workspace, workspace_bytes, stream.handle()),
              "cublasLtMatmul", p);
  }

  const Plan& plan(CudaStream& stream, const Product& p, BlasMode mode) {
    const Key key = {p.m,
                     p.n,
                     p.k,
                     p.x_stride,
                     p.out_stride,
                     uint64_t{p.out_f32} | uint64_t{p.accumulate} << 1 |
                         static_cast<uint64_t>(mode) << 2 | uint64_t{p.half == DType::kF16} << 3};
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    if (plans_.size() >= kMaxPlans) plans_.clear();
    return plans_.emplace(key, make(stream, p, mode)).first->second;
  }

 private:
  Plan make(CudaStream& stream, const Product& p, BlasMode mode) const {
    Plan plan = {.layouts = std::make_unique<Layouts>(p)};
    if (mode == BlasMode::kFastest) {
      const std::vector<Candidate> found = candidates(p, *plan.layouts, reductions(p));
      const bool tune = p.m <= kTunedRows && found.size() > 1 && !stream.is_capturing();
      take(found[tune ? fastest(stream, p, *plan.layouts, found) : 0], &plan);
      return plan;
    }
    Product common = p;
    common.m = kCommonRows;
    take(candidates(common, Layouts(common), CUBLASLT_REDUCTION_SCHEME_NONE)[0], &plan);
    Candidate checked = {};
    const Layouts& l = *plan.layouts;
    blas_must(cublasLtMatmulAlgoCheck(handle_, l.operation, l.w, l.x, l.out, l.out, &plan.algorithm,
                                      &checked),
              "cublasLtMatmulAlgoCheck", p);
    plan.workspace = checked.workspaceSize;
    return plan;
  }

  // How the parts of a K that is split may be added up. In f16 a part can be beyond the range of
  // which the sum is not.
  static uint32_t reductions(const Product& p) {
    const bool in_f16 = p.half == DType::kF16 && !p.out_f32;
    return in_f16 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_MASK;
  }

  static void take(const Candidate& from, Plan* plan) {
    plan->algorithm = from.algo;
    plan->workspace = from.workspaceSize;
  }

  // Best first, as cuBLASLt guesses; at least one.
  std::vector<Candidate> candidates(const Product& p, const Layouts& l, uint32_t reductions) const {
    cublasLtMatmulPreference_t preference = nullptr;
    blas_must(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", p);
    const size_t workspace = kWorkspaceBytes;
    blas_must(
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof(workspace)),
        "cublasLtMatmulPreferenceSetAttribute", p);
    blas_must(
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                             &reductions, sizeof(reductions)),
        "cublasLtMatmulPreferenceSetAttribute", p);
    std::vector<Candidate> found(kCandidates);
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, l.operation, l.w, l.x, l.out, l.out, preference,
                                       kCandidates, found.data(), &count);
    cublasLtMatmulPreferenceDestroy(preference);
    blas_must(status == CUBLAS_STATUS_SUCCESS && count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status,
              "cublasLtMatmulAlgoGetHeuristic", p);
    found.resize(static_cast<size_t>(count));
    return found;
  }

  // Index of the candidate that takes the least time with weights that no cache holds. Blocks for
  // a few milliseconds; 0 where there is no memory to try in.
  size_t fastest(CudaStream& stream, const Product& p, const Layouts& l,
                 const std::vector<Candidate>& found) const {
    const size_t flush_bytes = 2 * stream.info().l2_bytes;
    const auto flush = device::allocate_cuda(flush_bytes);
    const auto out = device::allocate_cuda(static_cast<size_t>(p.m * p.out_stride) * sizeof(float));
    if (!flush || !out) return 0;
    Product trial = p;
    trial.out = out->data();
    const EventPair events;
    size_t best = 0;
    float best_ms = std::numeric_limits<float>::max();
    for (size_t i = 0; i < found.size(); ++i) {
      for (int repeat = 0; repeat < 3; ++repeat) {
        device::cuda_must(cudaMemsetAsync(flush->data(), repeat, flush_bytes, stream.handle()),
                          "cudaMemsetAsync");
        events.begin(stream);
        multiply(stream, trial, l, found[i].algo, found[i].workspaceSize);
        const float ms = events.end_ms(stream);
        if (ms < best_ms) best = i, best_ms = ms;
      }
    }
    return best;
  }

  cublasLtHandle_t handle_ = nullptr;
  std::unordered_map<Key, Plan, KeyHash> plans_;
};

Blas& blas_of(CudaStream& stream) {
  std::shared_ptr<void>& state = stream.state(CudaStream::Use::kMatmul);
  if (state == nullptr) state = std::make_shared<Blas>();
  return *static_cast<Blas*>(state.get());
}

}  // namespace

void blas_matmul(CudaStream& stream, const Product& p, BlasMode mode) {
  Blas& blas = blas_of(stream);
  const Plan& plan = blas.plan(stream, p, mode);
  blas.multiply(stream, p, *plan.layouts, plan.algorithm, plan.workspace);
}

}  // namespace baton::ops
