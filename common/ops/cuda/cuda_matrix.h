#pragma once

#include <utility>

#include "common/ops/ops.h"

namespace baton::ops {

// bf16 or f16 [n][k], rows one after the other: what cuBLASLt and the kernels here read alike.
class CudaMatrix final : public PackedMatrix {
 public:
  CudaMatrix(device::Buffer memory, int64_t n, int64_t k, DType dtype)
      : memory_(std::move(memory)), n_(n), k_(k), dtype_(dtype) {}
  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  size_t bytes() const override { return static_cast<size_t>(n_ * k_) * size_bytes(dtype_); }
  DType dtype() const { return dtype_; }
  const void* data() const { return memory_.data(); }

 private:
  device::Buffer memory_;
  int64_t n_, k_;
  DType dtype_;
};

}  // namespace baton::ops
