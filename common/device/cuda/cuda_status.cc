#include "common/device/cuda/cuda_status.h"

#include <fmt/format.h>

#include <cstdlib>

#include "common/base/log.h"

namespace baton::device {

status cuda_status(cudaError_t error, std::string_view call) {
  if (error == cudaSuccess) return {};
  const Errc code =
      error == cudaErrorMemoryAllocation ? Errc::kResourceExhausted : Errc::kUnavailable;
  return baton::error(
      code, fmt::format("{}: {} ({})", call, cudaGetErrorString(error), cudaGetErrorName(error)));
}

void cuda_must(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  LOG_ERROR("{}: {} ({}); the GPU's context is lost, this process ends", call,
            cudaGetErrorString(error), cudaGetErrorName(error));
  spdlog::shutdown();
  std::abort();
}

}  // namespace baton::device
