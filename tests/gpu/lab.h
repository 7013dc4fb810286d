#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/device/device.h"
#include "common/formats/model_config.h"
#include "common/kvcache/kv_cache.h"
#include "common/ops/ops.h"
#include "tests/gpu/timer.h"

// What the parts of the benchmark share: the GPU, its roofs, memory full of random values.
namespace baton::gpu {

namespace json = boost::json;

struct Roofs {
  double read_bytes_s = 0;  // reading memory that no cache holds
  double copy_bytes_s = 0;  // read and written, together
  double blas_flop_s = 0;   // cuBLASLt's product of 8192^3 random halves
};

struct Lab {
  // `half`: what is computed in, kBF16 or kF16.
  Lab(bool quick, DType half);

  const bool quick;
  const DType half;
  const uint32_t repeats;  // of which medians are taken
  std::unique_ptr<device::Device> device;
  std::unique_ptr<device::Stream> stream;
  ops::Ops fast, deterministic;
  formats::ModelConfig config;  // Llama-3-8B's shape; fewer layers where it is quick
  Roofs roofs;

  // Normally distributed, halves and f32: constant values would cost the GPU less power.
  device::Buffer random(size_t bytes);
  device::Buffer random_f32(size_t count);
  device::Buffer memory(size_t bytes);  // contents undefined

  void fill(const device::Buffer& buffer, const void* pattern, size_t bytes);

 private:
  std::vector<float> normal_;     // what all random memory repeats
  std::vector<uint16_t> halves_;  // the same
};

// A cache of the model's layout, as much of it as is wanted and the GPU has room for, full of
// random values.
class BenchCache {
 public:
  BenchCache(Lab& lab, uint32_t block_tokens, size_t tokens, size_t keep_free_bytes);

  const kvcache::KvCache& cache() const { return cache_; }
  size_t max_tokens() const { return size_t{cache_.num_blocks()} * block_tokens_; }
  bool fits(uint32_t sequences, uint32_t tokens) const;
  // The block table of a sequence among others of so many tokens: blocks at random.
  std::vector<BlockId> table(uint32_t sequence, uint32_t tokens) const;
  ops::PagedKv layer(uint32_t index) const;

 private:
  const formats::ModelConfig& config_;
  const uint32_t block_tokens_;
  device::Buffer memory_;
  kvcache::KvCache cache_;
  std::vector<uint32_t> order_;  // of all blocks
};

// Sequences of a batch, on both sides.
class BenchSequences {
 public:
  // Each has `rows` rows behind `position` tokens.
  BenchSequences(Lab& lab, const BenchCache& cache, uint32_t sequences, uint32_t rows,
                 uint32_t position);
  ops::Sequences get() const { return {host_, device_rows(), max_tokens_}; }
  const std::vector<ops::SequenceRows>& host() const { return host_; }

 private:
  const ops::SequenceRows* device_rows() const {
    return reinterpret_cast<const ops::SequenceRows*>(memory_.data());
  }
  std::vector<std::vector<BlockId>> tables_;
  std::vector<ops::SequenceRows> host_;
  uint32_t max_tokens_;
  device::Buffer memory_, table_memory_;
};

json::object to_json(const Spread& s);
// For people who watch.
void say(const std::string& line);

}  // namespace baton::gpu
