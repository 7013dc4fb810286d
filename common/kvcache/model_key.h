#pragma once

#include <compare>
#include <string>

namespace baton::kvcache {

// Which model a cache belongs to. Two workers may exchange KV only if these are equal; they seed
// the prefix chain. Each is a fingerprint in any text form (this project: SHA-256 in hex).
struct ModelKey {
  std::string weights;
  std::string adapter;  // empty: none
  std::string tokenizer;

  // Canonical: different keys have different text.
  std::string to_string() const;
  friend auto operator<=>(const ModelKey&, const ModelKey&) = default;
};

}  // namespace baton::kvcache
