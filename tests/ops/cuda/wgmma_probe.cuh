#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/ops/cuda/kernel.cuh"

// What wgmma_probe.cu prints with, and keeps its data in.
namespace baton::ops {

using device::cuda_must;

inline void print(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

inline int failures = 0;

inline void verdict(std::string_view what, bool good, const std::string& detail) {
  if (!good) ++failures;
  print(text(good ? "ok    " : "FAIL  ", what, ": ", detail));
}

template <class T>
class Array {
 public:
  explicit Array(size_t count) : count_(count) {
    cuda_must(cudaMalloc(&data_, std::max<size_t>(count, 1) * sizeof(T)), "cudaMalloc");
  }
  explicit Array(const std::vector<T>& from) : Array(from.size()) { put(from); }
  Array(const Array&) = delete;
  ~Array() { cudaFree(data_); }
  void put(const std::vector<T>& from) {
    cuda_must(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
              "put");
  }
  std::vector<T> get() const {
    std::vector<T> to(count_, T());
    cuda_must(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "get");
    return to;
  }
  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// A launch that hangs would take the whole machine's time.
inline void finish(cudaStream_t stream, std::string_view what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  cudaError_t state;
  while ((state = cudaStreamQuery(stream)) == cudaErrorNotReady) {
    if (std::chrono::steady_clock::now() > deadline) {
      print(text("FAIL  ", what, " hangs"));
      _exit(1);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  if (state != cudaSuccess) {
    print(text("FAIL  ", what, ": ", cudaGetErrorString(state)));
    _exit(1);
  }
}

// A cache of one layer in the middle of three, as the engine lays it out.
struct Cache {
  Cache(uint32_t head_dim, uint32_t kv_heads, uint32_t block_tokens, uint32_t num_blocks)
      : memory(size_t{3} * num_blocks * 2 * kv_heads * block_tokens * head_dim) {
    cuda_must(cudaMemset(memory.data(), 0xff, memory.bytes()), "cudaMemset");  // NaN
    kv.block_tokens = block_tokens;
    kv.num_kv_heads = kv_heads;
    kv.head_dim = head_dim;
    kv.token_stride = head_dim * sizeof(bf16);
    kv.head_stride = block_tokens * kv.token_stride;
    kv.plane_stride = kv_heads * kv.head_stride;
    kv.block_stride = 3 * 2 * kv.plane_stride;
    kv.base = reinterpret_cast<std::byte*>(memory.data()) + 2 * kv.plane_stride;
  }
  Array<bf16> memory;
  PagedKv kv;
};

__device__ inline float hashed_normal(uint64_t i) {
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  x ^= x >> 31;
  float sum = 0;  // of four uniform numbers: normal enough
  for (int k = 0; k < 4; ++k) sum += static_cast<float>(x >> 16 * k & 0xffff) / 65536.0f - 0.5f;
  return sum * 1.732f;
}
static __global__ void fill(bf16* to, size_t count, uint64_t seed, float factor) {
  for (size_t i = blockIdx.x * size_t{256} + threadIdx.x; i < count; i += gridDim.x * size_t{256}) {
    to[i] = __float2bfloat16_rn(hashed_normal(i + (seed << 40)) * factor);
  }
}
static __global__ void write_kv(PagedKv kv, const BlockId* table, uint32_t tokens, uint64_t seed) {
  const uint32_t token = blockIdx.x, head = blockIdx.y, plane = blockIdx.z;
  auto* const to = reinterpret_cast<bf16*>(kv_vector(kv, table, plane, head, token));
  const uint64_t at = ((seed * 2 + plane) * kv.num_kv_heads + head) * tokens + token;
  for (uint32_t i = threadIdx.x; i < kv.head_dim; i += blockDim.x) {
    to[i] = __float2bfloat16_rn(hashed_normal(at * kv.head_dim + i));
  }
}

struct Rows {
  uint32_t position, rows;
};

// Sequences in a cache of scattered blocks, everything else in it NaN.
struct Problem {
  Problem(uint32_t head_dim, uint32_t heads, uint32_t kv_heads, uint32_t block_tokens,
          const std::vector<Rows>& sizes, uint32_t q_gap, float q_factor)
      : all(place(sizes, block_tokens)),
        cache(head_dim, kv_heads, block_tokens, num_blocks),
        ids(host_ids),
        q(size_t{num_rows} * (heads * head_dim + q_gap)),
        out(size_t{num_rows} * heads * head_dim),
        device_all(on_device()) {
    fill<<<1024, 256>>>(q.data(), q.bytes() / 2, 7, q_factor);
    for (size_t i = 0; i < all.size(); ++i) {
      const uint32_t tokens = all[i].position + all[i].num_rows;
      write_kv<<<dim3(tokens, kv_heads, 2), 64>>>(cache.kv, ids.data() + starts[i], tokens, i);
    }
    clear_out();
    args.q = Tensor::matrix(q.data(), DType::kBF16, num_rows, heads * head_dim,
                            heads * head_dim + q_gap);
    args.kv = cache.kv;
    args.num_heads = heads;
    args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    args.sequences = {all, device_all.data(), 0};
    args.out = Tensor::matrix(out.data(), DType::kBF16, num_rows, heads * head_dim);
  }
  void clear_out() {
    cuda_must(cudaMemset(out.data(), 0xa5, out.bytes()), "cudaMemset");
    finish(nullptr, "set-up");
  }

  uint32_t num_rows = 0, num_blocks = 0;
  std::vector<BlockId> host_ids;
  std::vector<size_t> starts;
  std::vector<SequenceRows> all;
  Cache cache;
  Array<BlockId> ids;
  Array<bf16> q, out;
  Array<SequenceRows> device_all;
  AttentionArgs args;

 private:
  std::vector<SequenceRows> place(const std::vector<Rows>& sizes, uint32_t block_tokens) {
    std::vector<SequenceRows> placed;
    for (const Rows& r : sizes) {
      placed.push_back({num_rows, r.rows, r.position, nullptr});
      starts.push_back(host_ids.size());
      num_rows += r.rows;
      const uint32_t blocks = (r.position + r.rows + block_tokens - 1) / block_tokens;
      for (uint32_t b = 0; b < blocks; ++b) host_ids.push_back(BlockId(num_blocks++));
      for (int b = 0; b < 9; ++b) host_ids.push_back(BlockId(0xfffffff0u));  // must not be read
    }
    std::vector<uint32_t> order(num_blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    for (BlockId& id : host_ids) id = id.value < num_blocks ? BlockId(order[id.value]) : id;
    return placed;
  }
  std::vector<SequenceRows> on_device() {
    std::vector<SequenceRows> there = all;
    for (size_t i = 0; i < all.size(); ++i) there[i].block_table = ids.data() + starts[i];
    return there;
  }
};

}  // namespace baton::ops
