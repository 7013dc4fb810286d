#include <cassert>

#include "common/ops/cuda/blas.h"
#include "common/ops/cuda/kernel.cuh"

namespace baton::ops {
namespace {

// One thread an element of a row; the grid's y goes over the rows.
template <class T>
__global__ void add_bias_kernel(const float* bias, T* out, int64_t cols, int64_t stride) {
  wait_for_inputs();
  let_next_start();
  const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= cols) return;
  T& at = out[blockIdx.y * stride + c];
  at = from_float<T>(to_float(at) + bias[c]);
}

}  // namespace

void add_bias(CudaStream& stream, const float* bias, const Tensor& out) {
  constexpr int kThreads = 256;
  constexpr int64_t kMaxRows = 65535;  // of a grid
  for (int64_t row = 0; row < out.rows; row += kMaxRows) {
    const Tensor part = out.slice_rows(row, std::min(kMaxRows, out.rows - row));
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(out.cols, kThreads)),
                    static_cast<unsigned>(part.rows));
    with_element(out.dtype, [&]<class T>() {
      launch(stream, grid, kThreads, 0, add_bias_kernel<T>, bias, part.as<T>(), part.cols,
             part.row_stride);
    });
  }
}

}  // namespace baton::ops
