#pragma once

#include <cuda_bf16.h>

#include <utility>

#include "common/ops/ops.h"

namespace baton::ops {

// bf16 [n][k], rows one after the other: what cuBLASLt and the kernels here read alike.
class CudaMatrix final : public PackedMatrix {
 public:
  CudaMatrix(device::Buffer memory, int64_t n, int64_t k)
      : memory_(std::move(memory)), n_(n), k_(k) {}
  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  size_t bytes() const override { return static_cast<size_t>(n_ * k_) * sizeof(__nv_bfloat16); }
  const __nv_bfloat16* data() const {
    return reinterpret_cast<const __nv_bfloat16*>(memory_.data());
  }

 private:
  device::Buffer memory_;
  int64_t n_, k_;
};

}  // namespace baton::ops
