#pragma once

#include "tests/ops/cache_testing.h"
#include "tests/ops/cuda/cuda_testing.h"

namespace baton::ops {

// Sequences of a batch as the host and the device know them: block tables and rows stand in the
// device's own memory, so that nothing on the host's side may read them.
class DeviceSequences {
 public:
  // `max_tokens`: the most that work recorded with them may be launched again for; 0: what they
  // have.
  DeviceSequences(OnGpu& gpu, const std::vector<SequenceRows>& rows, uint32_t block_tokens,
                  uint32_t max_tokens = 0)
      : host_(rows) {
    std::vector<SequenceRows> there = rows;
    for (SequenceRows& r : there) {
      const uint32_t tokens = r.position + r.num_rows;
      most_ = std::max(most_, tokens);
      if (r.block_table == nullptr) continue;
      const uint32_t blocks = (std::max(tokens, 1u) + block_tokens - 1) / block_tokens;
      tables_.push_back(gpu.upload(std::span<const BlockId>(r.block_table, blocks)));
      r.block_table = reinterpret_cast<const BlockId*>(tables_.back().data());
    }
    most_ = std::max(most_, max_tokens);
    rows_ = gpu.upload(std::span<const SequenceRows>(there));
  }

  Sequences get() const {
    return {host_, reinterpret_cast<const SequenceRows*>(rows_.data()), most_};
  }
  // Where the device reads the rows, for launching a recorded operation again.
  const device::Buffer& memory() const { return rows_; }
  const std::vector<SequenceRows>& host() const { return host_; }

 private:
  std::vector<SequenceRows> host_;
  uint32_t most_ = 0;
  std::vector<device::Buffer> tables_;
  device::Buffer rows_;
};

// A batch over one paged layer: its sequences, the cache of all, and q; on the host and there.
struct Batch {
  CacheShape shape;
  std::vector<uint32_t> lengths;  // tokens of each sequence
  std::vector<SequenceRows> rows;
  uint32_t total = 0;
  Cache cache;
  std::unique_ptr<MatrixH> q;
  mutable std::vector<float> wide;  // of cpu_kv()

  // The last num_rows[i] tokens of each sequence are its rows; so many rows at the end are
  // nobody's.
  Batch(Random& random, const CacheShape& of, const std::vector<uint32_t>& tokens,
        const std::vector<uint32_t>& num_rows, float q_scale = 1.0f, uint32_t nobodys = 0)
      : shape(of), lengths(tokens), cache(random, of, tokens) {
    for (size_t s = 0; s < tokens.size(); ++s) {
      cache.fill(random, s, tokens[s]);
      rows.push_back({total, num_rows[s], tokens[s] - num_rows[s], cache.table(s)});
      total += num_rows[s];
    }
    q = std::make_unique<MatrixH>(to_halves(
        random_matrix(random, total + nobodys, int64_t{shape.heads} * shape.head_dim, q_scale)));
  }

  size_t cache_bytes() const {
    size_t blocks = 0;
    for (const uint32_t n : lengths) blocks += (n + shape.block_tokens - 1) / shape.block_tokens;
    return blocks * cache.kv().block_stride;
  }
  std::span<const std::byte> cache_memory() const { return {cache.kv().base, cache_bytes()}; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape.head_dim)); }

  AttentionArgs args(const PagedKv& kv, const Tensor& q_tensor, const Sequences& sequences,
                     const Tensor& out) const {
    return {.q = q_tensor,
            .kv = kv,
            .num_heads = shape.heads,
            .scale = scale(),
            .sequences = sequences,
            .out = out};
  }

  // What the CPU computes from: the cache, or where that is f16 the same in f32.
  PagedKv cpu_kv() const {
    if (shape.dtype != DType::kF16) return cache.kv();
    wide = widened(cache_memory());
    return as_f32(cache.kv(), wide);
  }
  static std::vector<float> widened(std::span<const std::byte> halves) {
    std::vector<float> all(halves.size() / sizeof(uint16_t));
    const auto* from = reinterpret_cast<const uint16_t*>(halves.data());
    std::transform(from, from + all.size(), all.begin(), half_to_f32);
    return all;
  }
  static PagedKv as_f32(PagedKv kv, std::vector<float>& memory) {
    kv.base = reinterpret_cast<std::byte*>(memory.data());
    kv.dtype = DType::kF32;
    for (size_t* stride : {&kv.block_stride, &kv.plane_stride, &kv.head_stride, &kv.token_stride}) {
      *stride *= 2;
    }
    return kv;
  }

  // The same cache, but in the device's memory.
  PagedKv kv_in(const device::Buffer& memory) const {
    PagedKv kv = cache.kv();
    kv.base = memory.data();
    return kv;
  }
};

inline std::string to_string(const CacheShape& s) {
  return std::to_string(s.heads) + "of" + std::to_string(s.kv_heads) + "x" +
         std::to_string(s.head_dim) + "in" + std::to_string(s.block_tokens);
}
inline void PrintTo(const CacheShape& s, std::ostream* os) { *os << to_string(s); }

}  // namespace baton::ops
