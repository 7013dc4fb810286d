#include "common/model/weight_digest.h"

#include <xxhash.h>

#include <algorithm>

#include "common/kvcache/sha256.h"

namespace baton::model {
namespace {

constexpr size_t kSliceBytes = 64 << 10;

}  // namespace

Digest128 digest_bytes(std::span<const std::byte> bytes) {
  const XXH128_hash_t h = XXH3_128bits(bytes.data(), bytes.size());
  return {h.low64, h.high64};
}

uint64_t digest_rows(size_t row_bytes) { return std::max<size_t>(kSliceBytes / row_bytes, 1); }

void WeightDigest::add(std::string_view tensor, std::span<const Digest128> slices) {
  tensors_[std::string(tensor)] = digest_bytes(std::as_bytes(slices));
}

std::string WeightDigest::finish(const formats::Fingerprint& files) const {
  kvcache::Sha256 sha;
  sha.update(std::as_bytes(std::span(files.bytes)));
  for (const auto& [name, digest] : tensors_) {
    const uint64_t size = name.size();
    sha.update(std::as_bytes(std::span(&size, 1)));
    sha.update(std::as_bytes(std::span(name)));
    sha.update(std::as_bytes(std::span(&digest, 1)));
  }
  return kvcache::to_hex(sha.finish());
}

}  // namespace baton::model
