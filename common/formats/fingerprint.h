#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/formats/tensor_file.h"

namespace baton::formats {

// Tells weights apart: SHA-256 over `description` (the configuration the weights are used with)
// and, in the order of their names, each tensor's name, type, shape and three 4-KiB samples (its
// first, middle and last bytes). It reads 12 KiB a tensor, not the file, so a start stays fast; it
// tells models and fine-tunes apart, but not a file whose bytes were changed between the samples:
// it is an identity, not a check of integrity. The same weights in one file or in shards give the
// same value; names of files and directories do not enter. Blocks on the disk.
struct Fingerprint {
  std::array<uint8_t, 32> bytes{};

  std::string hex() const;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

Fingerprint fingerprint(std::span<const std::byte> description,
                        std::span<const TensorView> tensors);

}  // namespace baton::formats
