#pragma once

#include <string>

#include "common/kvcache/layout.h"

// What a test and its peer process agree on.
namespace baton::kvtransfer {

inline constexpr uint32_t kPeerBlocks = 256;

// 12 KiB a layer and block, as SmolLM2-135M.
inline kvcache::KvLayout peer_layout() {
  return kvcache::KvLayout::full_kv(8, 3, 64, DType::kBF16, 16);
}

inline std::string to_hex(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char c : bytes) {
    hex += kDigits[c >> 4];
    hex += kDigits[c & 15];
  }
  return hex;
}
inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

}  // namespace baton::kvtransfer
