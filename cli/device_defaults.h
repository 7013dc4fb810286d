#pragma once

#include <cstdint>
#include <string_view>

#include "common/base/config.h"
#include "common/base/result.h"

namespace baton::cli {

// What a GPU does best with, where nobody asked for something else: larger blocks are read faster,
// and it takes more rows than a CPU to keep it busy (docs/benchmarks_gpu.md).
inline void settle_for_device(const Options& options, std::string_view device,
                              uint32_t* block_tokens, uint32_t* chunk_tokens) {
  if (device != "cuda") return;
  constexpr uint32_t kBlockTokens = 64;
  if (!options.was_set("chunk-tokens")) *chunk_tokens = 2048;
  // A chunk is whole blocks.
  const bool divides = *chunk_tokens % kBlockTokens == 0;
  if (!options.was_set("block-tokens") && divides) *block_tokens = kBlockTokens;
}

inline status check_profile(std::string_view device, std::string_view profile) {
  if (device != "emulated" || !profile.empty()) return {};
  return error(Errc::kInvalidArgument, "--device emulated needs --profile");
}

}  // namespace baton::cli
