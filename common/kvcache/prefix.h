#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/kvcache/model_key.h"
#include "common/kvcache/sha256.h"

namespace baton::kvcache {

// Names the content of one full block and of everything before it.
struct PrefixHash {
  Sha256Digest bytes{};
  friend bool operator==(const PrefixHash&, const PrefixHash&) = default;
};

enum class PrefixHashKind : uint8_t {
  kSha256,
  kFast,  // for prompts that nobody chooses: collisions can be made. Simulations' alone
};

// The prefix chain: root = SHA-256(model, block size, salt), next = SHA-256(previous, token ids of
// one full block). Cryptographic, because whoever finds a collision reads another tenant's cache.
// Used by one thread; allocates nothing after construction.
class PrefixHasher {
 public:
  PrefixHasher(const ModelKey& model, uint32_t block_tokens,
               PrefixHashKind kind = PrefixHashKind::kSha256);

  uint32_t block_tokens() const { return block_tokens_; }
  // `salt` separates tenants; empty is the common one.
  PrefixHash root(std::string_view salt);
  PrefixHash next(const PrefixHash& previous, std::span<const TokenId> block);
  // Appends the hash of every full block of `tokens` to `out`.
  void block_hashes(std::string_view salt, std::span<const TokenId> tokens,
                    std::vector<PrefixHash>& out);

 private:
  uint32_t block_tokens_;
  PrefixHashKind kind_;
  PrefixHash model_;
  Sha256 sha_;
};

}  // namespace baton::kvcache

template <>
struct std::hash<baton::kvcache::PrefixHash> {
  size_t operator()(const baton::kvcache::PrefixHash& h) const noexcept {
    size_t v;  // any eight bytes of a SHA-256 are a good hash
    std::memcpy(&v, h.bytes.data(), sizeof v);
    return v;
  }
};
