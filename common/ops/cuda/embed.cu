#include <cassert>

#include "common/ops/cuda/cuda_matrix.h"
#include "common/ops/cuda/eight.cuh"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 8 * kThreads;  // elements of a row that a block copies

static_assert(sizeof(TokenId) == sizeof(uint32_t));

// The same elements, their bits untouched.
template <class T>
__device__ __forceinline__ void copy_eight(const T* from, T* to, int64_t count) {
  if (count >= 8 && is_aligned_16(from) && is_aligned_16(to)) {
    constexpr int kWords = static_cast<int>(8 * sizeof(T) / sizeof(uint4));
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    for (int i = 0; i < count && i < 8; ++i) to[i] = from[i];
  }
}

// out[r] = from[index[r]], rows of `cols`. A block copies one chunk of one row.
// Reads and writes each row once; a row is short, so the roof is latency for a few of them and the
// memory's bandwidth for a prompt.
template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    take_rows(const uint32_t* index, const From* from, int64_t from_stride, To* out,
              int64_t out_stride, int64_t cols) {
  wait_for_inputs();
  let_next_start();
  const int64_t r = blockIdx.x, at = blockIdx.y * kChunk + threadIdx.x * 8;
  if (at >= cols) return;
  const From* source = from + static_cast<int64_t>(index[r]) * from_stride + at;
  To* target = out + r * out_stride + at;
  if constexpr (std::is_same_v<From, To>) {
    copy_eight(source, target, cols - at);
  } else {
    store_eight(load_eight(source, cols - at), target, cols - at);
  }
}

template <class From, class To>
void launch_take(Stream& stream, const void* index, const void* from, int64_t from_stride,
                 const Tensor& out) {
  if (out.rows == 0 || out.cols == 0) return;
  const dim3 grid(static_cast<unsigned>(out.rows),
                  static_cast<unsigned>(ceil_div(out.cols, kChunk)));
  launch(cuda_stream(stream), grid, kThreads, 0, take_rows<From, To>,
         static_cast<const uint32_t*>(index), static_cast<const From*>(from), from_stride,
         out.as<To>(), out.row_stride, out.cols);
}

template <class From>
void launch_embed(Stream& stream, std::span<const TokenId> ids, const From* table, int64_t stride,
                  const Tensor& out) {
  with_element(out.dtype,
               [&]<class To>() { launch_take<From, To>(stream, ids.data(), table, stride, out); });
}

// One thread an id: 4 bytes in, and where the host did not know it 4 more and 4 out. Latency.
__global__ void __launch_bounds__(kThreads)
    resolve_ids(TokenId* ids, uint32_t count, const TokenId* drawn) {
  wait_for_inputs();
  let_next_start();
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const TokenId id = ids[i];
  if (id < 0) ids[i] = drawn[-1 - id];
}

}  // namespace

void cuda_resolve_drawn(Stream& stream, std::span<TokenId> ids, const TokenId* drawn) {
  if (ids.empty()) return;
  const auto count = static_cast<uint32_t>(ids.size());
  launch(cuda_stream(stream), ceil_div<uint32_t>(count, kThreads), kThreads, 0, resolve_ids,
         ids.data(), count, drawn);
}

void cuda_embed(Stream& stream, std::span<const TokenId> ids, const Tensor& table,
                const Tensor& out) {
  assert(out.rows == static_cast<int64_t>(ids.size()) && out.cols == table.cols);
  with_element(table.dtype, [&]<class From>() {
    launch_embed(stream, ids, table.as<From>(), table.row_stride, out);
  });
}

void cuda_embed_packed(Stream& stream, std::span<const TokenId> ids, const PackedMatrix& table,
                       const Tensor& out) {
  const auto& matrix = static_cast<const CudaMatrix&>(table);
  assert(out.rows == static_cast<int64_t>(ids.size()) && out.cols == matrix.k());
  with_half(matrix.dtype(), [&]<class From>() {
    launch_embed(stream, ids, static_cast<const From*>(matrix.data()), matrix.k(), out);
  });
}

void cuda_gather_rows(Stream& stream, const Tensor& x, std::span<const uint32_t> rows,
                      const Tensor& out) {
  assert(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols);
  assert(x.dtype == out.dtype);
  with_element(x.dtype, [&]<class T>() {
    launch_take<T, T>(stream, rows.data(), x.data, x.row_stride, out);
  });
}

}  // namespace baton::ops
