#include "common/ops/cuda/blas.h"

#include <cublasLt.h>

#include <cassert>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "common/base/log.h"

namespace baton::ops {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA asks for on Hopper
constexpr size_t kMaxPlans = 4096;                    // prefill chunks come in many sizes
// The size whose kernel serves every size, where all must use one: small enough for decode.
constexpr int64_t kCommonRows = 128;

void blas_must(cublasStatus_t status, const char* call, const Product& p) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  LOG_ERROR("{}: {} for m={} n={} k={}; this process ends", call,
            cublasLtGetStatusString(status), p.m, p.n, p.k);
  spdlog::shutdown();
  std::abort();
}

// cuBLAS counts columns first: out^T [n x m] = w^T' * x', with w as k x n and x as k x m.
struct Layouts {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, out = nullptr;

  explicit Layouts(const Product& p) {
    const cudaDataType_t out_type = p.out_f32 ? CUDA_R_32F : CUDA_R_16BF;
    blas_must(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate", p);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    blas_must(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                             sizeof(transposed)),
              "cublasLtMatmulDescSetAttribute", p);
    layout(&w, CUDA_R_16BF, p.k, p.n, p.k, p);
    layout(&x, CUDA_R_16BF, p.k, p.m, p.x_stride, p);
    layout(&out, out_type, p.n, p.m, p.out_stride, p);
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

class Blas {
 public:
  Blas() {
    const cublasStatus_t status = cublasLtCreate(&handle_);
    blas_must(status, "cublasLtCreate", {});
  }
  ~Blas() { cublasLtDestroy(handle_); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  cublasLtHandle_t handle() const { return handle_; }

  const Plan& plan(const Product& p, BlasMode mode) {
    const Key key = {p.m, p.n, p.k, p.x_stride, p.out_stride,
                     uint64_t{p.out_f32} | uint64_t{p.accumulate} << 1 |
                         static_cast<uint64_t>(mode) << 2};
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    if (plans_.size() >= kMaxPlans) plans_.clear();
    return plans_.emplace(key, make(p, mode)).first->second;
  }

 private:
  Plan make(const Product& p, BlasMode mode) const {
    Plan plan = {.layouts = std::make_unique<Layouts>(p)};
    if (mode == BlasMode::kFastest) {
      choose(p, *plan.layouts, CUBLASLT_REDUCTION_SCHEME_MASK, &plan);
      return plan;
    }
    Product common = p;
    common.m = kCommonRows;
    choose(common, Layouts(common), CUBLASLT_REDUCTION_SCHEME_NONE, &plan);
    cublasLtMatmulHeuristicResult_t checked = {};
    const Layouts& l = *plan.layouts;
    blas_must(cublasLtMatmulAlgoCheck(handle_, l.operation, l.w, l.x, l.out, l.out, &plan.algorithm,
                                      &checked),
              "cublasLtMatmulAlgoCheck", p);
    plan.workspace = checked.workspaceSize;
    return plan;
  }

  void choose(const Product& p, const Layouts& l, uint32_t reductions, Plan* plan) const {
    cublasLtMatmulPreference_t preference = nullptr;
    blas_must(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", p);
    const size_t workspace = kWorkspaceBytes;
    blas_must(cublasLtMatmulPreferenceSetAttribute(preference,
                                                   CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &workspace, sizeof(workspace)),
              "cublasLtMatmulPreferenceSetAttribute", p);
    blas_must(cublasLtMatmulPreferenceSetAttribute(preference,
                                                   CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                   &reductions, sizeof(reductions)),
              "cublasLtMatmulPreferenceSetAttribute", p);
    cublasLtMatmulHeuristicResult_t best = {};
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, l.operation, l.w, l.x, l.out, l.out, preference, 1,
                                       &best, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    blas_must(status == CUBLAS_STATUS_SUCCESS && found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status,
              "cublasLtMatmulAlgoGetHeuristic", p);
    plan->algorithm = best.algo;
    plan->workspace = best.workspaceSize;
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
  const Plan& plan = blas.plan(p, mode);
  const Layouts& l = *plan.layouts;
  const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
  std::byte* workspace = stream.scratch(CudaStream::Use::kMatmul, kWorkspaceBytes);
  blas_must(cublasLtMatmul(blas.handle(), l.operation, &one, p.w, l.w, p.x, l.x, &beta, p.out,
                           l.out, p.out, l.out, &plan.algorithm, workspace, plan.workspace,
                           stream.handle()),
            "cublasLtMatmul", p);
}

}  // namespace baton::ops
