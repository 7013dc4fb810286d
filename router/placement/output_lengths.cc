#include "router/placement/output_lengths.h"

#include <algorithm>
#include <bit>

namespace baton::router {
namespace {

uint32_t class_row(uint32_t class_index) { return class_index * (1 + OutputLengths::kSizes); }

uint32_t size_row(uint32_t class_index, uint64_t prompt_tokens) {
  const auto size = static_cast<uint32_t>(std::bit_width(prompt_tokens >> 7));
  return class_row(class_index) + 1 + std::min(size, OutputLengths::kSizes - 1);
}

}  // namespace

void OutputLengths::observe(uint32_t class_index, uint64_t prompt_tokens, uint32_t output_tokens,
                            LengthModel::End end) {
  model_.observe(class_row(class_index), output_tokens, end);
  model_.observe(size_row(class_index, prompt_tokens), output_tokens, end);
}

double OutputLengths::mean_left(uint32_t class_index, uint64_t prompt_tokens, uint32_t delivered,
                                uint32_t max_tokens) const {
  const uint32_t row = size_row(class_index, prompt_tokens);
  const bool any = model_.seen(row) > 0;
  return model_.mean_left(any ? row : class_row(class_index), delivered, max_tokens);
}

}  // namespace baton::router
