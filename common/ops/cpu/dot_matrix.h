#pragma once

#include <utility>

#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/dot_kernel.h"

namespace baton::ops {

// bf16 weights [n, k] for VDPBF16PS, as panels of 32 output features: element (n, k) lies at
// [n / 32][k / 2][n % 32][k % 2]. The last panel and an odd k are filled up with zeros. Activations
// are rounded to bf16. Owns its memory.
class DotMatrix final : public CpuMatrix {
 public:
  DotMatrix(int64_t n, int64_t k, device::Buffer data) : n_(n), k_(k), data_(std::move(data)) {}

  static size_t bytes_for(int64_t n, int64_t k) {
    return static_cast<size_t>(panels_of(n) * pairs_of(k) * kPanel) * 2 * sizeof(uint16_t);
  }

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  size_t bytes() const override { return data_.bytes(); }
  void multiply(device::CpuStream& stream, const Tensor& x, const float* bias, const Tensor& out,
                bool accumulate) const override;
  void read_row(int64_t n, float* out) const override;

  int64_t panels() const { return panels_of(n_); }
  int64_t pairs() const { return pairs_of(k_); }
  uint16_t* panel(int64_t p) const {
    return reinterpret_cast<uint16_t*>(data_.data()) + p * pairs() * 2 * kPanel;
  }

 private:
  static_assert(kPanel == kDotColumns);
  static int64_t panels_of(int64_t n) { return (n + kPanel - 1) / kPanel; }
  static int64_t pairs_of(int64_t k) { return (k + 1) / 2; }

  int64_t n_, k_;
  device::Buffer data_;
};

// As Ops::pack, for bf16. Only where has_bf16_dot().
result<std::unique_ptr<PackedMatrix>> dot_pack(device::Device&, std::span<const Tensor> parts);

}  // namespace baton::ops
