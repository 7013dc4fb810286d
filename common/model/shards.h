#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/formats/model_config.h"
#include "common/formats/tensor_names.h"

namespace baton::model {

struct Range {
  uint64_t begin = 0, end = 0;
  uint64_t size() const { return end - begin; }
};

// Which part of a model each of `size` ranks has (tensor parallelism). Every matrix is split by its
// outputs, and its whole input is gathered before it (Megatron-LM's "column parallel" throughout):
// an output is then the same sum in the same order whatever the degree, which an all-reduce of
// partial sums would not give. KV heads, and the query heads that share one, stay together; parts
// may be unequal. Pure.
class Shards {
 public:
  Shards() = default;  // of no model
  // kUnsupported, with both numbers, where a rank would have no KV head.
  static result<Shards> create(const formats::ModelConfig& config, uint32_t rank, uint32_t size);

  uint32_t rank() const { return rank_; }
  uint32_t size() const { return size_; }
  bool is_whole() const { return size_ == 1; }

  // How much of each dimension every rank has, in order of ranks.
  std::span<const uint32_t> kv_heads() const { return kv_heads_; }
  std::span<const uint32_t> q_cols() const { return q_cols_; }  // heads * head_dim
  std::span<const uint32_t> hidden() const { return hidden_; }
  std::span<const uint32_t> intermediate() const { return intermediate_; }
  std::span<const uint32_t> vocab() const { return vocab_; }
  // This rank's.
  uint32_t own(std::span<const uint32_t> all) const { return all[rank_]; }
  Range own_range(std::span<const uint32_t> all) const;

  // Rows of the tensor that this rank has, of `rows`.
  Range rows_of(formats::TensorRole role, uint64_t rows) const;
  // Columns of the embedding, which is split by them: looked up where it is, and gathered.
  Range embedding_cols() const { return own_range(hidden_); }

 private:
  uint32_t rank_ = 0, size_ = 1;
  uint32_t head_dim_ = 0;
  std::vector<uint32_t> kv_heads_, q_cols_, hidden_, intermediate_, vocab_;
};

}  // namespace baton::model
