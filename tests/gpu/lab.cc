#include "tests/gpu/lab.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>

#include "common/device/cuda/cuda_device.h"
#include "common/model/model.h"
#include "common/model/rope.h"
#include "common/ops/cuda/cuda_ops.h"
#include "tests/model/random_weights.h"

namespace baton::gpu {
namespace {

constexpr size_t kPattern = (size_t{8} << 20) + 64;  // values; larger than what repeats in a cache

}  // namespace

Lab::Lab(bool is_quick, DType of_half)
    : quick(is_quick),
      half(of_half),
      repeats(is_quick ? 3 : 5),
      device(device::make_cuda_device(0).value()),
      stream(device->make_stream()),
      fast(ops::cuda_ops({.half = half}).value()),
      deterministic(ops::cuda_ops({.half = half, .deterministic = true}).value()),
      config(model::llama3_8b_shape(is_quick ? 8 : 32)),
      normal_(kPattern),
      halves_(kPattern) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& v : normal_) v = normal(random);
  std::transform(normal_.begin(), normal_.end(), halves_.begin(),
                 half == DType::kF16 ? f32_to_f16 : f32_to_bf16);
}

device::Buffer Lab::memory(size_t bytes) { return device->allocate(bytes).value(); }

// Doubles what is there until the buffer is full.
void Lab::fill(const device::Buffer& buffer, const void* pattern, size_t bytes) {
  size_t done = std::min(bytes, buffer.bytes());
  device->copy(*stream, buffer.data(), pattern, done);
  while (done < buffer.bytes()) {
    const size_t more = std::min(done, buffer.bytes() - done);
    device->copy(*stream, buffer.data() + done, buffer.data(), more);
    done += more;
  }
  stream->synchronize();
}

device::Buffer Lab::random(size_t bytes) {
  device::Buffer buffer = memory(bytes);
  fill(buffer, halves_.data(), halves_.size() * sizeof(uint16_t));
  return buffer;
}

device::Buffer Lab::random_f32(size_t count) {
  device::Buffer buffer = memory(count * sizeof(float));
  fill(buffer, normal_.data(), normal_.size() * sizeof(float));
  return buffer;
}

BenchCache::BenchCache(Lab& lab, uint32_t block_tokens, size_t tokens, size_t keep_free_bytes)
    : config_(lab.config), block_tokens_(block_tokens) {
  auto layout = kvcache::KvLayout::full_kv(config_.num_layers, config_.num_kv_heads,
                                           config_.head_dim, lab.half, block_tokens);
  layout.rope = model::rope_text(model::rope_frequencies(config_, {}).value());
  const size_t free = free_memory_bytes();
  const size_t room = free > keep_free_bytes ? (free - keep_free_bytes) / layout.block_bytes() : 0;
  const auto blocks = static_cast<uint32_t>(std::min(room, tokens / block_tokens));
  memory_ = lab.random(blocks * layout.block_bytes());
  cache_ = kvcache::KvCache::create({memory_.data(), memory_.bytes()}, layout, blocks).value();
  order_.resize(blocks);
  std::iota(order_.begin(), order_.end(), 0);
  std::shuffle(order_.begin(), order_.end(), std::mt19937(3));
}

bool BenchCache::fits(uint32_t sequences, uint32_t tokens) const {
  return size_t{sequences} * cache_.layout().blocks_for(tokens) <= cache_.num_blocks();
}

std::vector<BlockId> BenchCache::table(uint32_t sequence, uint32_t tokens) const {
  const uint32_t each = cache_.layout().blocks_for(tokens);
  std::vector<BlockId> table(each);
  for (uint32_t i = 0; i < each; ++i) table[i] = BlockId(order_[size_t{sequence} * each + i]);
  return table;
}

ops::PagedKv BenchCache::layer(uint32_t index) const {
  return model::paged_kv(cache_, index % config_.num_layers);
}

BenchSequences::BenchSequences(Lab& lab, const BenchCache& cache, uint32_t sequences, uint32_t rows,
                               uint32_t position)
    : max_tokens_(position + rows) {
  const size_t each = cache.cache().layout().blocks_for(max_tokens_);
  table_memory_ = lab.memory(sequences * each * sizeof(BlockId));
  for (uint32_t s = 0; s < sequences; ++s) {
    tables_.push_back(cache.table(s, max_tokens_));
    host_.push_back({s * rows, rows, position, tables_.back().data()});
    lab.device->copy(*lab.stream, table_memory_.data() + s * each * sizeof(BlockId),
                     tables_.back().data(), each * sizeof(BlockId));
  }
  std::vector<ops::SequenceRows> there = host_;
  const auto* tables = reinterpret_cast<const BlockId*>(table_memory_.data());
  for (uint32_t s = 0; s < sequences; ++s) there[s].block_table = tables + s * each;
  memory_ = lab.memory(there.size() * sizeof(ops::SequenceRows));
  lab.device->copy(*lab.stream, memory_.data(), there.data(),
                   there.size() * sizeof(ops::SequenceRows));
  lab.stream->synchronize();
}

json::object to_json(const Spread& s) {
  return {{"median", s.median}, {"least", s.least}, {"most", s.most}};
}

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace baton::gpu
