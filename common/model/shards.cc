#include "common/model/shards.h"

#include <fmt/format.h>

#include <cassert>
#include <numeric>

namespace baton::model {
namespace {

// Outputs of a product come in groups of this many where there are enough of them.
constexpr uint32_t kGroup = 16;

// `n` things in whole groups, as evenly as these go.
std::vector<uint32_t> split(uint32_t n, uint32_t size, uint32_t group) {
  const uint64_t groups = n / group;
  std::vector<uint32_t> parts;
  for (uint64_t r = 0; r < size; ++r) {
    parts.push_back(static_cast<uint32_t>((groups * (r + 1) / size - groups * r / size) * group));
  }
  parts.back() += n % group;
  return parts;
}
std::vector<uint32_t> split(uint32_t n, uint32_t size) {
  return split(n, size, n / kGroup >= size ? kGroup : 1);
}

}  // namespace

result<Shards> Shards::create(const formats::ModelConfig& config, uint32_t rank, uint32_t size) {
  assert(rank < size);
  if (config.num_kv_heads < size) {
    return error(Errc::kUnsupported,
                 fmt::format("a tensor-parallel degree of {} is more than the model's {} KV heads",
                             size, config.num_kv_heads));
  }
  Shards s;
  s.rank_ = rank;
  s.size_ = size;
  s.head_dim_ = config.head_dim;
  s.kv_heads_ = split(config.num_kv_heads, size, 1);
  const uint32_t q_cols_of_kv_head = config.num_heads / config.num_kv_heads * config.head_dim;
  for (const uint32_t heads : s.kv_heads_) s.q_cols_.push_back(heads * q_cols_of_kv_head);
  s.hidden_ = split(config.hidden, size);
  s.intermediate_ = split(config.intermediate, size);
  s.vocab_ = split(config.vocab_size, size);
  return s;
}

Range Shards::own_range(std::span<const uint32_t> all) const {
  const uint64_t begin = std::accumulate(all.begin(), all.begin() + rank_, uint64_t{0});
  return {begin, begin + all[rank_]};
}

Range Shards::rows_of(formats::TensorRole role, uint64_t rows) const {
  using enum formats::TensorRole;
  if (is_whole()) return {0, rows};
  switch (role) {
    case kQ:
    case kQBias:
      return own_range(q_cols_);
    case kK:
    case kV:
    case kKBias:
    case kVBias: {
      const Range heads = own_range(kv_heads_);
      return {heads.begin * head_dim_, heads.end * head_dim_};
    }
    case kO:
    case kDown:
      return own_range(hidden_);
    case kGate:
    case kUp:
      return own_range(intermediate_);
    case kLmHead:
      return own_range(vocab_);
    default:
      return {0, rows};
  }
}

}  // namespace baton::model
