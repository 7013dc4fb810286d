#pragma once

#include <cstddef>
#include <string_view>

#include "common/base/result.h"

namespace baton::text::jinja {

// What one template, and one rendering of it, may use.
struct Limits {
  size_t max_source_bytes = size_t{1} << 20;
  size_t max_depth = 200;  // of nested expressions, blocks and macro calls together
  // Nodes evaluated, items made, each 64 bytes of text made, and what else one of these costs:
  // about a second of work, whatever the template does.
  size_t max_steps = 4'000'000;
  size_t max_output_bytes = size_t{16} << 20;  // also of any one string
};

// Counts what a rendering has used. Errors are kResourceExhausted.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}

  status step(size_t steps = 1) {
    used_steps_ += steps;
    if (used_steps_ <= limits_.max_steps) return {};
    return error(Errc::kResourceExhausted, "rendering takes more steps than allowed");
  }
  // For text of that size, before it is made where its size is known before.
  status text(size_t bytes) {
    if (bytes > limits_.max_output_bytes) {
      return error(Errc::kResourceExhausted, "a text gets longer than allowed");
    }
    return step(1 + bytes / 64);
  }
  const Limits& limits() const { return limits_; }

 private:
  const Limits limits_;
  size_t used_steps_ = 0;
};

}  // namespace baton::text::jinja
