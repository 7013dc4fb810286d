#pragma once

#include <cstdint>

#include "router/placement/length_model.h"

namespace baton::router {

// How many tokens a request will put out, by its class and how long its prompt is: what is asked
// about a long document is mostly answered in a few words. A LengthModel of each class, with a part
// for each size of prompt, by powers of two. A value; one thread at a time.
class OutputLengths {
 public:
  static constexpr uint32_t kSizes = 10;  // below 128 tokens, below 256, .., from 32768

  explicit OutputLengths(uint32_t num_classes) : model_(num_classes, kSizes) {}

  // A choice is over, with `output_tokens` delivered. Cost: LengthModel::observe(), twice.
  void observe(uint32_t class_index, uint64_t prompt_tokens, uint32_t output_tokens,
               LengthModel::End end);

  // Of one that has delivered so many: the mean of what is to come, at most max_tokens - delivered.
  double mean_left(uint32_t class_index, uint64_t prompt_tokens, uint32_t delivered,
                   uint32_t max_tokens) const;
  double mean(uint32_t class_index, uint64_t prompt_tokens, uint32_t max_tokens) const {
    return mean_left(class_index, prompt_tokens, 0, max_tokens);
  }

 private:
  LengthModel model_;
};

}  // namespace baton::router
