#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/dtype.h"
#include "common/device/device.h"

// cuBLASLt as it comes: what the GPU's own library reaches, for the operations to stand beside.
namespace baton::gpu {

// out[m, n] = x[m, k] * w[n, k]^T (+ out), all dense; x and w halves, sums in f32.
struct RawProduct {
  const void *x = nullptr, *w = nullptr;
  void* out = nullptr;
  int64_t m = 0, n = 0, k = 0;
  bool out_f32 = false, accumulate = false;
  DType half = DType::kBF16;  // or kF16
};

class RawBlas {
 public:
  explicit RawBlas(device::Device& device);
  ~RawBlas();

  // The algorithms that the heuristics offer for this shape, the best guess first.
  size_t prepare(const RawProduct& shape);
  // Enqueues the product of a prepared shape by one of them.
  void run(device::Stream& stream, const RawProduct& product, size_t algorithm);

 private:
  struct Plan;
  device::Buffer workspace_;
  std::unique_ptr<Plan> plan_;  // of the shape last prepared
};

}  // namespace baton::gpu
