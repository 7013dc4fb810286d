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
// tells most models apart, but not files that differ only between the samples; a loaded model's key
// has every byte in it (model/weight_digest.h). The same weights in one file or in shards give the
// same value; names of files and directories do not enter. Blocks on the disk.
struct Fingerprint {
  std::array<uint8_t, 32> bytes{};

  std::string hex() const;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

Fingerprint fingerprint(std::span<const std::byte> description,
                        std::span<const TensorView> tensors);

}  // namespace baton::formats
