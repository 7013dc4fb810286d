#include "common/ops/cpu/candidates.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "common/ops/cpu/vocab_row.h"

namespace baton::ops {
namespace {

constexpr float kUnits = 0x1p44f;  // of mass in a weight of 1
constexpr float kSmallest = 1 / kUnits;
// How far to reach at first, and how much further each time that was not enough. The likeliest few
// hundred tokens carry nearly all of a model's mass.
constexpr float kFirstThreshold = 0x1p-7f;
constexpr float kFurther = 0x1p-8f;

uint64_t mass_of(float weight) {
  return static_cast<uint64_t>(static_cast<int64_t>(weight * kUnits));
}

uint64_t key_of(float weight, TokenId id) {
  return (uint64_t{std::bit_cast<uint32_t>(weight)} << 32) | ~static_cast<uint32_t>(id);
}

uint64_t mass_of_key(uint64_t key) {
  return mass_of(std::bit_cast<float>(static_cast<uint32_t>(key >> 32)));
}

uint64_t mass_of_keys(const uint64_t* begin, const uint64_t* end) {
  uint64_t sum = 0;
  for (; begin != end; ++begin) sum += mass_of_key(*begin);
  return sum;
}

}  // namespace

Candidates::Candidates(const float* x, size_t vocab, float max, float temperature,
                       std::byte* scratch)
    : keys_(reinterpret_cast<uint64_t*>(scratch)),
      vocab_(vocab),
      floor_(kSmallest),
      threshold_(kFirstThreshold / kFurther) {
  weights_ = reinterpret_cast<float*>(keys_ + vocab);
  ids_ = reinterpret_cast<TokenId*>(weights_ + vocab);
  row_weights(x, vocab, max, 1.0f / temperature, weights_);
}

void Candidates::keep_min_p(float min_p) { floor_ = std::max(floor_, std::min(min_p, 1.0f)); }

void Candidates::keep_top_k(uint32_t k) {
  if (k == 0 || k >= vocab_) return;
  gather_until([&] { return gathered_ >= k; });
  if (gathered_ > k) {
    std::nth_element(keys_, keys_ + k - 1, keys_ + gathered_, std::greater<>());
  }
  cut(std::min<size_t>(k, gathered_));
}

void Candidates::keep_top_p(float p) {
  if (p >= 1.0f) return;
  const double wanted = std::ceil(static_cast<double>(total_mass()) * std::max(p, 0.0f));
  cut(prefix_reaching(std::clamp<uint64_t>(static_cast<uint64_t>(wanted), 1, total_mass())));
}

TokenId Candidates::pick(uint64_t bits) {
  using Wide = unsigned __int128;
  const auto target = static_cast<uint64_t>((Wide{bits} * total_mass()) >> 64);
  const uint64_t key = keys_[prefix_reaching(target + 1) - 1];
  return static_cast<TokenId>(~static_cast<uint32_t>(key));
}

uint64_t Candidates::total_mass() {
  if (complete_) return gathered_mass_;
  if (kept_mass_ == 0) {
    for (size_t i = 0; i < vocab_; ++i) {
      if (weights_[i] >= floor_) kept_mass_ += mass_of(weights_[i]);
    }
  }
  return kept_mass_;
}

// Gathers further until `enough()` or until all there is has been gathered.
template <class Enough>
void Candidates::gather_until(Enough&& enough) {
  while (!complete_ && !enough()) {
    threshold_ = std::max(threshold_ * kFurther, floor_);
    gathered_ = row_select(weights_, vocab_, threshold_, ids_);
    gathered_mass_ = 0;
    for (size_t i = 0; i < gathered_; ++i) {
      keys_[i] = key_of(weights_[ids_[i]], ids_[i]);
      gathered_mass_ += mass_of(weights_[ids_[i]]);
    }
    complete_ = threshold_ == floor_;
  }
}

// From here on the first `count` keys are all there is.
void Candidates::cut(size_t count) {
  gathered_ = count;
  gathered_mass_ = mass_of_keys(keys_, keys_ + count);
  complete_ = true;
}

// How many of the heaviest it takes to reach `mass` (at most total_mass()); they are moved to the
// front, the lightest of them last. Linear in what is gathered.
size_t Candidates::prefix_reaching(uint64_t mass) {
  gather_until([&] { return gathered_mass_ >= mass; });
  size_t low = 0, high = gathered_;
  uint64_t before = 0;  // mass of the keys in front of `low`
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(keys_ + low, keys_ + middle, keys_ + high, std::greater<>());
    const uint64_t upper = mass_of_keys(keys_ + low, keys_ + middle);
    if (before + upper >= mass) {
      high = middle;
    } else {
      before += upper;
      low = middle;
    }
  }
  return low + 1;
}

}  // namespace baton::ops
