#include <cassert>

#include "common/ops/cuda/eight.cuh"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

constexpr int kThreads = 128;

// cos, sin [rows, half] of positions[row] * inv_freq[i], one thread an element, in double like the
// CPU: a position times a frequency has more digits than f32. Writes 8 bytes an element once a
// forward pass; the roof is double precision's rate, some hundred operations an element.
__global__ void __launch_bounds__(kThreads)
    rope_angle_rows(const uint32_t* positions, const float* inv_freq, uint32_t rows, uint32_t half,
                    float* cos_out, int64_t cos_stride, float* sin_out, int64_t sin_stride) {
  wait_for_inputs();
  let_next_start();
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= rows * half) return;
  const uint32_t r = i / half, c = i % half;
  const double angle = static_cast<double>(positions[r]) * static_cast<double>(inv_freq[c]);
  double s, co;
  sincos(angle, &s, &co);
  cos_out[r * cos_stride + c] = static_cast<float>(co);
  sin_out[r * sin_stride + c] = static_cast<float>(s);
}

// Of T, to halves of Half.
template <class T, class Half>
struct RopeKv {
  const T* qkv;  // [rows, (heads + 2 * kv_heads) * head_dim]
  int64_t qkv_stride;
  const float *cos, *sin;  // [rows, head_dim / 2]
  int64_t cos_stride, sin_stride;
  const float *q_norm, *k_norm;  // [head_dim] or null
  float norm_eps;
  uint32_t rows, heads, all_heads;
  const SequenceRows* sequences;
  uint32_t num_sequences;
  PagedKv kv;
  Half* q_out;  // [rows, heads * head_dim]
  int64_t q_stride;
};

__device__ __forceinline__ bool holds(const SequenceRows& s, uint32_t row) {
  return row - s.first_row < s.num_rows;  // unsigned: false in front of it, too
}

// The sequence that `row` belongs to; one of no rows if there is none.
__device__ __forceinline__ SequenceRows find_sequence(const SequenceRows* all, uint32_t n,
                                                      uint32_t row) {
  uint32_t begin = 0, end = n;  // all before `begin` start at or before the row, none from `end` on
  while (begin < end) {
    const uint32_t middle = (begin + end) / 2;
    if (all[middle].first_row <= row) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin > 0 && holds(all[begin - 1], row) ? all[begin - 1] : SequenceRows{};
}

// One head's vector in a group of kLanes threads: each holds eight elements of either half, those
// that are rotated with each other.
struct HeadPart {
  Eight low, high;
};

// x / rms(x) * weight. Every thread of the group takes part; idle ones hold zeros.
template <int kLanes>
__device__ __forceinline__ void norm_head(HeadPart& x, const float* weight, float eps,
                                          uint32_t half, uint32_t at, bool active) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(x.low.v[i], x.low.v[i], sum);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(x.high.v[i], x.high.v[i], sum);
  // Only the group's lanes: another group of the warp may have no norm. It is aligned, so xor stays
  // inside.
  const uint32_t group = threadIdx.x % 32 / kLanes * kLanes;
  const uint32_t mask = (kLanes == 32 ? 0xffffffffu : (1u << (kLanes % 32)) - 1) << group;
#pragma unroll
  for (int lane = kLanes / 2; lane > 0; lane /= 2) sum += __shfl_xor_sync(mask, sum, lane);
  if (!active) return;
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(2 * half) + eps);
  const Eight low = load_eight(weight + at), high = load_eight(weight + half + at);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x.low.v[i] = x.low.v[i] * scale * low.v[i];
    x.high.v[i] = x.high.v[i] * scale * high.v[i];
  }
}

__device__ __forceinline__ void rotate(HeadPart& x, const Eight& cos, const Eight& sin) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float a = x.low.v[i], b = x.high.v[i];
    x.low.v[i] = fmaf(-b, sin.v[i], a * cos.v[i]);
    x.high.v[i] = fmaf(a, sin.v[i], b * cos.v[i]);
  }
}

template <class Half>
__device__ __forceinline__ void store_head(const HeadPart& x, Half* out, uint32_t half,
                                           uint32_t at) {
  store_eight(x.low, out + at);
  store_eight(x.high, out + half + at);
}

// A group of kLanes threads (the power of two from head_dim / 16 up) does one head of one row: q
// heads, then K, then V. Nothing depends on which rows or heads share a block.
// Reads qkv once and writes as much, half to q_out and half to the cache at most; cos and sin come
// from L1 or L2 after a row's first head. The roof is the memory's bandwidth, latency for few rows.
template <class T, class Half, int kLanes>
__global__ void __launch_bounds__(kThreads) rope_heads(RopeKv<T, Half> p) {
  wait_for_inputs();
  let_next_start();
  const uint32_t item = (blockIdx.x * kThreads + threadIdx.x) / kLanes;
  if (item >= p.rows * p.all_heads) return;  // whole groups leave
  const uint32_t row = item / p.all_heads, head = item % p.all_heads;
  const uint32_t kv_heads = p.kv.num_kv_heads;
  const bool is_query = head < p.heads, is_value = head >= p.heads + kv_heads;
  SequenceRows s;  // where all decode, row i is sequence i: asked for before it is known to be so
  if (!is_query && p.num_sequences == p.rows) s = p.sequences[row];

  const uint32_t d = p.kv.head_dim, half = d / 2, at = threadIdx.x % kLanes * 8;
  const bool active = at < half;
  HeadPart x = {};
  Eight cos = {}, sin = {};
  if (active) {
    const T* from = p.qkv + row * p.qkv_stride + size_t{head} * d + at;
    load_two_eights(from, from + half, x.low, x.high);
    if (!is_value) {
      load_two_eights(p.cos + row * p.cos_stride + at, p.sin + row * p.sin_stride + at, cos, sin);
    }
  }
  const float* weight = is_query ? p.q_norm : is_value ? nullptr : p.k_norm;
  if (weight != nullptr) norm_head<kLanes>(x, weight, p.norm_eps, half, at, active);
  if (!active) return;
  if (!is_value) rotate(x, cos, sin);
  if (is_query) {
    return store_head(x, p.q_out + row * p.q_stride + size_t{head} * d, half, at);
  }
  if (!holds(s, row)) s = find_sequence(p.sequences, p.num_sequences, row);
  if (s.num_rows == 0) return;
  const uint32_t kv_head = head - p.heads - (is_value ? kv_heads : 0);
  std::byte* vector =
      kv_vector(p.kv, s.block_table, is_value ? 1 : 0, kv_head, s.position + (row - s.first_row));
  store_head(x, reinterpret_cast<Half*>(vector), half, at);
}

template <int kLanes, class T, class Half>
void launch_heads(CudaStream& stream, const RopeKv<T, Half>& p) {
  const uint64_t threads = uint64_t{p.rows} * p.all_heads * kLanes;
  assert(threads < uint64_t{1} << 31);
  launch(stream, ceil_div(static_cast<uint32_t>(threads), uint32_t{kThreads}), kThreads, 0,
         rope_heads<T, Half, kLanes>, p);
}

template <class T, class Half>
void launch_rope(CudaStream& stream, const RopeKvArgs& args) {
  const uint32_t d = args.kv.head_dim;
  assert(d % 16 == 0 && d <= 512);
  const RopeKv<T, Half> p = {.qkv = args.qkv.as<T>(),
                             .qkv_stride = args.qkv.row_stride,
                             .cos = args.cos.as<float>(),
                             .sin = args.sin.as<float>(),
                             .cos_stride = args.cos.row_stride,
                             .sin_stride = args.sin.row_stride,
                             .q_norm = args.q_norm,
                             .k_norm = args.k_norm,
                             .norm_eps = args.norm_eps,
                             .rows = static_cast<uint32_t>(args.qkv.rows),
                             .heads = args.num_heads,
                             .all_heads = args.num_heads + 2 * args.kv.num_kv_heads,
                             .sequences = args.sequences.device,
                             .num_sequences = static_cast<uint32_t>(args.sequences.host.size()),
                             .kv = args.kv,
                             .q_out = args.q_out.as<Half>(),
                             .q_stride = args.q_out.row_stride};
  assert(args.qkv.cols == int64_t{p.all_heads} * d);
  if (d <= 16) return launch_heads<1>(stream, p);
  if (d <= 32) return launch_heads<2>(stream, p);
  if (d <= 64) return launch_heads<4>(stream, p);
  if (d <= 128) return launch_heads<8>(stream, p);
  if (d <= 256) return launch_heads<16>(stream, p);
  launch_heads<32>(stream, p);
}

}  // namespace

void cuda_rope_angles(Stream& stream, std::span<const uint32_t> positions,
                      std::span<const float> inv_freq, const Tensor& cos, const Tensor& sin) {
  const auto rows = static_cast<uint32_t>(positions.size());
  const auto half = static_cast<uint32_t>(inv_freq.size());
  assert(cos.rows == rows && cos.cols == half && sin.rows == rows && sin.cols == half);
  assert(uint64_t{rows} * half < uint64_t{1} << 31);
  if (rows * half == 0) return;
  launch(cuda_stream(stream), ceil_div(rows * half, uint32_t{kThreads}), kThreads, 0,
         rope_angle_rows, positions.data(), inv_freq.data(), rows, half, cos.as<float>(),
         cos.row_stride, sin.as<float>(), sin.row_stride);
}

void cuda_rope_and_write_kv(Stream& stream, const RopeKvArgs& args) {
  assert(args.kv.dtype == args.q_out.dtype);
  if (args.qkv.rows == 0) return;
  with_half(args.kv.dtype, [&]<class Half>() {
    if (args.qkv.dtype == DType::kF32) {
      return launch_rope<float, Half>(cuda_stream(stream), args);
    }
    assert(args.qkv.dtype == args.kv.dtype);
    launch_rope<Half, Half>(cuda_stream(stream), args);
  });
}

}  // namespace baton::ops
