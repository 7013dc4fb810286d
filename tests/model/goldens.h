#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "common/base/ids.h"

namespace baton::model {

// What scripts/make_goldens.py stored of one prompt, computed by transformers in float32.
struct Golden {
  std::string name;
  std::vector<TokenId> prompt;
  std::vector<TokenId> output;  // greedy
  // [prompt + output]: the logits at a position score the token after it; descending.
  std::vector<std::vector<TokenId>> top_ids;
  std::vector<std::vector<float>> top_logits;

  std::vector<TokenId> tokens() const;  // prompt, then output
  float gap(size_t position) const { return top_logits[position][0] - top_logits[position][1]; }
};

std::filesystem::path data_dir();

// Throws where the file is not what the script writes.
std::vector<Golden> read_goldens(const std::filesystem::path& path);

// The lowest id of the largest logit.
TokenId argmax(std::span<const float> logits);

}  // namespace baton::model
