#pragma once

#include <cuda_runtime_api.h>

#include <string_view>

#include "common/base/result.h"

namespace baton::device {

// "CALL: what CUDA says of it", for calls while things are being set up. kResourceExhausted where
// memory is short.
status cuda_status(cudaError_t error, std::string_view call);

// For calls that can only fail when the context is lost: logs CALL and CUDA's words, and aborts.
void cuda_must(cudaError_t error, const char* call);

}  // namespace baton::device
