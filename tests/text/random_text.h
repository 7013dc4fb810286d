#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/text/utf8.h"
#include "tests/text/golden_files.h"

// The strings whose hashes scripts/make_text_goldens.py stored: the same generator as there.
namespace baton::text {

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ull;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }

 private:
  uint64_t state_;
};

// FNV-1a.
inline uint32_t hash_of(std::string_view bytes) {
  uint32_t value = 0x811c9dc5u;
  for (char c : bytes) value = (value ^ static_cast<uint8_t>(c)) * 0x01000193u;
  return value;
}
inline uint32_t hash_of(const std::vector<TokenId>& ids) {
  std::string bytes;
  for (TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(id >> shift);
  }
  return hash_of(bytes);
}

class RandomTexts {
 public:
  explicit RandomTexts(std::string_view family)
      : seed_(static_cast<uint64_t>(hash_of(family)) << 32),
        alphabet_(boost::json::parse(read_data("alphabet.json"))) {}

  std::string text(uint64_t index) const {
    const auto& fixed = alphabet_.at("fixed").as_array();
    if (index < fixed.size()) return text_of(fixed[index]);
    Random random(seed_ | index);
    std::string out;
    for (uint64_t left = 1 + random.below(24); left > 0; --left) {
      const std::string part = fragment(random);
      uint64_t times = 1;
      if (random.below(40) == 0) times = 2 + random.below(40);
      for (; times > 0; --times) out += part;
    }
    return out;
  }

  std::vector<TokenId> ids(uint64_t index, size_t vocab_size) const {
    Random random(seed_ | index | 1u << 31);
    std::vector<TokenId> out(random.below(20));
    for (TokenId& id : out) id = static_cast<TokenId>(random.below(vocab_size));
    return out;
  }

 private:
  std::string fragment(Random& random) const {
    const uint64_t kind = random.below(100);
    if (kind < 70) {
      const auto& groups = alphabet_.at("groups").as_array();
      const auto& group = groups[random.below(groups.size())].as_array();
      return text_of(group[random.below(group.size())]);
    }
    std::string out;
    if (kind < 85) {
      const auto& ranges = alphabet_.at("ranges").as_array();
      const auto& range = ranges[random.below(ranges.size())];
      const auto low = range.at(0).to_number<uint64_t>(), high = range.at(1).to_number<uint64_t>();
      append_utf8(out, static_cast<char32_t>(low + random.below(high - low + 1)));
      return out;
    }
    constexpr std::string_view kLetters = "etaoinshrdluETAOIN";
    for (uint64_t left = 1 + random.below(9); left > 0; --left) {
      out += kLetters[random.below(kLetters.size())];
    }
    return out;
  }

  const uint64_t seed_;
  const boost::json::value alphabet_;
};

}  // namespace baton::text
