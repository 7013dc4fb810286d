#pragma once

#include <utility>

#include "common/device/cpu/cpu_device.h"
#include "common/ops/ops.h"

namespace baton::ops {

// What the CPU's packed matrices have in common, whichever kernel multiplies with them. Immutable
// once packed; any thread may multiply.
class CpuMatrix : public PackedMatrix {
 public:
  // Ops::matmul.
  virtual void multiply(device::CpuStream& stream, const Tensor& x, const float* bias,
                        const Tensor& out, bool accumulate) const = 0;
  // out[0..k) = the weights of output feature `n`.
  virtual void read_row(int64_t n, float* out) const = 0;
};

// Output features of one panel.
inline constexpr int64_t kPanel = 32;

// For our own kernel (matmul.cc). Weights [n, k] as panels of 32 output features: element (n, k)
// lies at [n / 32][k][n % 32], so that one row of a panel meets one activation, and is a cache line
// in bf16. The last panel is filled up with zeros. Owns its memory.
class PanelMatrix final : public CpuMatrix {
 public:
  PanelMatrix(int64_t n, int64_t k, DType dtype, device::Buffer data)
      : n_(n), k_(k), dtype_(dtype), data_(std::move(data)) {}

  static size_t bytes_for(int64_t n, int64_t k, DType dtype) {
    return static_cast<size_t>((n + kPanel - 1) / kPanel * kPanel * k) * size_bytes(dtype);
  }

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  size_t bytes() const override { return data_.bytes(); }
  void multiply(device::CpuStream& stream, const Tensor& x, const float* bias, const Tensor& out,
                bool accumulate) const override;
  void read_row(int64_t n, float* out) const override;

  DType dtype() const { return dtype_; }
  int64_t panels() const { return (n_ + kPanel - 1) / kPanel; }
  // T: uint16_t for bf16, float for f32.
  template <class T>
  T* panel(int64_t p) const {
    return reinterpret_cast<T*>(data_.data()) + p * kPanel * k_;
  }

 private:
  int64_t n_, k_;
  DType dtype_;
  device::Buffer data_;
};

}  // namespace baton::ops
