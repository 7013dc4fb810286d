#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/formats/fingerprint.h"

namespace baton::model {

struct Digest128 {
  uint64_t low = 0, high = 0;
  friend bool operator==(const Digest128&, const Digest128&) = default;
};

// XXH3, 128 bits. Thread-safe.
Digest128 digest_bytes(std::span<const std::byte> bytes);

// Rows of a matrix that are digested as one: a few cache-sized kilobytes. By the shape alone, so
// that any number of threads gives the same digests.
uint64_t digest_rows(size_t row_bytes);

// Names weights by every byte that was loaded, so that two workers with equal names hold the same
// model. Meant for files that differ by accident or by training, not for forged ones.
class WeightDigest {
 public:
  // `slices`: the digests of a tensor's bytes in order; each tensor once, in any order.
  void add(std::string_view tensor, std::span<const Digest128> slices);
  // SHA-256 in hex over all that was added and `files`, which stands for configuration, types and
  // shapes.
  std::string finish(const formats::Fingerprint& files) const;

 private:
  std::map<std::string, Digest128, std::less<>> tensors_;
};

}  // namespace baton::model
