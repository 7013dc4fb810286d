#include <algorithm>
#include <cassert>

#include "common/ops/cuda/eight.cuh"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

constexpr int kThreads = 256;
constexpr uint32_t kVector = 16;  // bytes of an output row that a thread makes

// Up to kMost parts [rows, cols], of elements of one size. A launch carries all of it.
template <uint32_t kMost>
struct JoinParts {
  const std::byte* data[kMost];
  uint32_t stride[kMost];   // bytes from row to row
  uint32_t end[kMost + 1];  // [i + 1]: bytes of an output row up to the part's end
  uint32_t count;
};

// The part that has byte `at` of an output row.
template <uint32_t kMost>
__device__ __forceinline__ uint32_t part_of(const JoinParts<kMost>& parts, uint32_t at) {
  uint32_t i = 0;
  while (at >= parts.end[i + 1]) ++i;
  return i;
}

// parts [rows, cols of each] -> out [rows, sum of cols]; one thread makes 16 bytes of a row, in one
// piece where it lies in one part and both sides are aligned, else element by element.
// Reads and writes rows * row_bytes; the roof is the memory's bandwidth, or the L2 cache's, where
// the parts have just been gathered.
template <class T, uint32_t kMost>
__global__ void __launch_bounds__(kThreads)
    join_rows(JoinParts<kMost> parts, std::byte* out, int64_t out_stride, uint32_t row_bytes) {
  wait_for_inputs();
  let_next_start();
  const int64_t r = blockIdx.x;
  const uint32_t at = (blockIdx.y * kThreads + threadIdx.x) * kVector;
  if (at >= row_bytes) return;
  std::byte* const to = out + r * out_stride + at;
  const uint32_t first = part_of(parts, at);
  const std::byte* const from =
      parts.data[first] + r * parts.stride[first] + (at - parts.end[first]);
  if (at + kVector <= parts.end[first + 1] && is_aligned_16(from) && is_aligned_16(to)) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    store_16(to, v.x, v.y, v.z, v.w);
    return;
  }
  for (uint32_t b = 0; b < kVector && at + b < row_bytes; b += sizeof(T)) {
    const uint32_t i = part_of(parts, at + b);
    const std::byte* const source = parts.data[i] + r * parts.stride[i] + (at + b - parts.end[i]);
    *reinterpret_cast<T*>(to + b) = *reinterpret_cast<const T*>(source);
  }
}

template <class T, uint32_t kMost>
void launch_join(Stream& stream, std::span<const Tensor> parts, const Tensor& out) {
  JoinParts<kMost> all = {.count = static_cast<uint32_t>(parts.size())};
  for (uint32_t i = 0; i < all.count; ++i) {
    assert(parts[i].rows == out.rows && parts[i].dtype == out.dtype);
    all.data[i] = parts[i].at(0);
    all.stride[i] = static_cast<uint32_t>(parts[i].row_stride * sizeof(T));
    all.end[i + 1] = all.end[i] + static_cast<uint32_t>(parts[i].cols * sizeof(T));
  }
  const auto row_bytes = static_cast<uint32_t>(out.cols * sizeof(T));
  assert(all.end[all.count] == row_bytes);
  const dim3 grid(static_cast<unsigned>(out.rows), ceil_div(row_bytes, kThreads * kVector));
  launch(cuda_stream(stream), grid, kThreads, 0, join_rows<T, kMost>, all, out.at(0),
         static_cast<int64_t>(out.row_stride * sizeof(T)), row_bytes);
}

template <class T>
void launch_join(Stream& stream, std::span<const Tensor> parts, const Tensor& out) {
  if (parts.size() <= 8) return launch_join<T, 8>(stream, parts, out);
  assert(parts.size() <= 64);
  launch_join<T, 64>(stream, parts, out);
}

}  // namespace

void cuda_join_columns(Stream& stream, std::span<const Tensor> parts, const Tensor& out) {
  if (out.rows == 0 || out.cols == 0) return;
  if (size_bytes(out.dtype) == 2) return launch_join<uint16_t>(stream, parts, out);
  assert(size_bytes(out.dtype) == 4);
  launch_join<uint32_t>(stream, parts, out);
}

}  // namespace baton::ops
