#include <algorithm>
#include <cassert>

#include "common/ops/cuda/eight.cuh"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kPerRound = 8 * kMaxThreads;  // elements a whole block holds at eight a thread

__device__ __forceinline__ float add_squares(const Eight& e, float sum) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(e.v[i], e.v[i], sum);
  return sum;
}

// The block's sum, in every thread, always added in the same order: lanes, then warps.
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float of_warp[kMaxThreads / 32];
  const uint32_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
  v = warp_sum(v);
  if (lane == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  return warp_sum(lane < warps ? of_warp[lane] : 0.0f);
}

template <class From, class To>
struct RmsNorm {
  const From* x;  // [rows, cols]
  int64_t x_stride;
  const float* weight;  // [cols]
  float eps;
  To* out;  // [rows, cols]
  int64_t out_stride, cols;
};

template <class From, class To>
__device__ __forceinline__ void write_normed(const RmsNorm<From, To>& p, const Eight& x,
                                             const Eight& weight, float scale, int64_t at) {
  Eight o;
#pragma unroll
  for (int i = 0; i < 8; ++i) o.v[i] = x.v[i] * scale * weight.v[i];
  store_eight(o, p.out + blockIdx.x * p.out_stride + at, p.cols - at);
}

// A block a row. Thread t has the eights t, t + threads, ...; the row stays in registers, kHeld
// eights a thread, and is read once. The number of threads follows from cols alone, and with it the
// order of the sum. Reads and writes each row once, and the weight from L2; the roof is latency for
// a few rows and the memory's bandwidth for many.
template <class From, class To, int kHeld>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_held(RmsNorm<From, To> p) {
  const int64_t first = threadIdx.x * int64_t{8}, step = blockDim.x * int64_t{8};
  Eight x[kHeld], weight[kHeld];
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int64_t at = first + j * step;
    weight[j] = load_eight(p.weight + at, p.cols - at);
  }
  wait_for_inputs();
  let_next_start();
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int64_t at = first + j * step;
    x[j] = load_eight(p.x + blockIdx.x * p.x_stride + at, p.cols - at);
    sum = add_squares(x[j], sum);
  }
  const float scale = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(p.cols) + p.eps);
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int64_t at = first + j * step;
    if (at < p.cols) write_normed(p, x[j], weight[j], scale, at);
  }
}

// The same for rows too long to be held: each is read twice.
template <class From, class To>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_long(RmsNorm<From, To> p) {
  wait_for_inputs();
  let_next_start();
  const int64_t first = threadIdx.x * int64_t{8}, step = blockDim.x * int64_t{8};
  const From* row = p.x + blockIdx.x * p.x_stride;
  float sum = 0;
  for (int64_t at = first; at < p.cols; at += step) {
    sum = add_squares(load_eight(row + at, p.cols - at), sum);
  }
  const float scale = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(p.cols) + p.eps);
  for (int64_t at = first; at < p.cols; at += step) {
    write_normed(p, load_eight(row + at, p.cols - at), load_eight(p.weight + at, p.cols - at),
                 scale, at);
  }
}

template <class From, class To>
void launch_norm(Stream& stream, const Tensor& x, const float* weight, float eps,
                 const Tensor& out) {
  const RmsNorm<From, To> p = {.x = x.as<From>(),
                               .x_stride = x.row_stride,
                               .weight = weight,
                               .eps = eps,
                               .out = out.as<To>(),
                               .out_stride = out.row_stride,
                               .cols = x.cols};
  const int64_t eights = ceil_div<int64_t>(x.cols, 8);
  const auto threads =
      static_cast<unsigned>(std::min<int64_t>(kMaxThreads, ceil_div<int64_t>(eights, 32) * 32));
  const auto kernel = x.cols <= kPerRound       ? rms_norm_held<From, To, 1>
                      : x.cols <= 2 * kPerRound ? rms_norm_held<From, To, 2>
                                                : rms_norm_long<From, To>;
  launch(cuda_stream(stream), static_cast<unsigned>(x.rows), threads, 0, kernel, p);
}

}  // namespace

void cuda_rms_norm(Stream& stream, const Tensor& x, const float* weight, float eps,
                   const Tensor& out) {
  assert(x.rows == out.rows && x.cols == out.cols);
  if (x.rows == 0 || x.cols == 0) return;
  with_element(x.dtype, [&]<class From>() {
    with_element(out.dtype, [&]<class To>() {
      if constexpr (std::is_same_v<From, To> || std::is_same_v<From, float> ||
                    std::is_same_v<To, float>) {
        launch_norm<From, To>(stream, x, weight, eps, out);
      } else {
        assert(false);  // a table has one half
      }
    });
  });
}

}  // namespace baton::ops
