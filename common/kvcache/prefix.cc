#include "common/kvcache/prefix.h"

#include <xxhash.h>

#include <cassert>

namespace baton::kvcache {
namespace {

PrefixHash fast_next(const PrefixHash& previous, std::span<const TokenId> block) {
  uint64_t seed;
  std::memcpy(&seed, previous.bytes.data(), sizeof seed);
  const XXH128_hash_t h = XXH3_128bits_withSeed(block.data(), block.size_bytes(), seed);
  PrefixHash out;
  std::memcpy(out.bytes.data(), &h, sizeof h);
  return out;
}

}  // namespace

PrefixHasher::PrefixHasher(const ModelKey& model, uint32_t block_tokens, PrefixHashKind kind)
    : block_tokens_(block_tokens), kind_(kind) {
  const std::string text =
      "baton prefix 1 " + std::to_string(block_tokens) + " " + model.to_string();
  sha_.update(std::as_bytes(std::span(text)));
  model_.bytes = sha_.finish();
}

PrefixHash PrefixHasher::root(std::string_view salt) {
  sha_.update(model_.bytes);
  sha_.update(std::as_bytes(std::span(salt)));
  return {sha_.finish()};
}

PrefixHash PrefixHasher::next(const PrefixHash& previous, std::span<const TokenId> block) {
  assert(block.size() == block_tokens_);
  if (kind_ == PrefixHashKind::kFast) return fast_next(previous, block);
  sha_.update(previous.bytes);
  sha_.update(std::as_bytes(block));
  return {sha_.finish()};
}

void PrefixHasher::block_hashes(std::string_view salt, std::span<const TokenId> tokens,
                                std::vector<PrefixHash>& out) {
  PrefixHash hash = root(salt);
  for (; tokens.size() >= block_tokens_; tokens = tokens.subspan(block_tokens_)) {
    hash = next(hash, tokens.first(block_tokens_));
    out.push_back(hash);
  }
}

}  // namespace baton::kvcache
