#include "tests/gpu/blas_roof.h"

#include <cublasLt.h>

#include <stdexcept>
#include <string>

#include "common/device/cuda/cuda_stream.h"

namespace baton::gpu {
namespace {

constexpr size_t kWorkspace = size_t{64} << 20;
constexpr int kAlgorithms = 8;

void must(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string(call) + ": " + cublasLtGetStatusString(status));
}

}  // namespace

// cuBLASLt counts in columns: a row-major matrix is its transpose there. So out^T = w * x^T.
struct RawBlas::Plan {
  Plan() { must(cublasLtCreate(&handle), "cublasLtCreate"); }
  ~Plan() {
    forget();
    cublasLtDestroy(handle);
  }
  void forget() {
    if (operation == nullptr) return;
    cublasLtMatmulDescDestroy(operation);
    for (const cublasLtMatrixLayout_t layout : {w, x, out}) cublasLtMatrixLayoutDestroy(layout);
    operation = nullptr;
  }

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, out = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms;
};

RawBlas::RawBlas(device::Device& device)
    : workspace_(device.allocate(kWorkspace).value()), plan_(std::make_unique<Plan>()) {}
RawBlas::~RawBlas() = default;

size_t RawBlas::prepare(const RawProduct& p) {
  plan_->forget();
  must(cublasLtMatmulDescCreate(&plan_->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
       "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  must(cublasLtMatmulDescSetAttribute(plan_->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                      sizeof(transposed)),
       "cublasLtMatmulDescSetAttribute");
  const auto layout = [](cublasLtMatrixLayout_t* to, cudaDataType type, int64_t rows,
                         int64_t cols) {
    must(cublasLtMatrixLayoutCreate(to, type, static_cast<uint64_t>(rows),
                                    static_cast<uint64_t>(cols), rows),
         "cublasLtMatrixLayoutCreate");
  };
  const cudaDataType half = p.half == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
  layout(&plan_->w, half, p.k, p.n);
  layout(&plan_->x, half, p.k, p.m);
  layout(&plan_->out, p.out_f32 ? CUDA_R_32F : half, p.n, p.m);
  cublasLtMatmulPreference_t preference = nullptr;
  must(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  must(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &kWorkspace, sizeof(kWorkspace)),
       "cublasLtMatmulPreferenceSetAttribute");
  plan_->algorithms.resize(kAlgorithms);
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      plan_->handle, plan_->operation, plan_->w, plan_->x, plan_->out, plan_->out, preference,
      kAlgorithms, plan_->algorithms.data(), &found);
  cublasLtMatmulPreferenceDestroy(preference);
  must(status, "cublasLtMatmulAlgoGetHeuristic");
  plan_->algorithms.resize(static_cast<size_t>(found));
  return plan_->algorithms.size();
}

void RawBlas::run(device::Stream& stream, const RawProduct& p, size_t algorithm) {
  const float alpha = 1, beta = p.accumulate ? 1 : 0;
  must(cublasLtMatmul(plan_->handle, plan_->operation, &alpha, p.w, plan_->w, p.x, plan_->x, &beta,
                      p.out, plan_->out, p.out, plan_->out, &plan_->algorithms[algorithm].algo,
                      workspace_.data(), kWorkspace,
                      static_cast<device::CudaStream&>(stream).handle()),
       "cublasLtMatmul");
}

}  // namespace baton::gpu
