#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "common/base/clock.h"

namespace baton::sim {

// What happened, a line each, for whoever replays a seed; says nothing unless switched on.
class Trace {
 public:
  explicit Trace(std::FILE* out) : out_(out) {}

  bool on() const { return out_ != nullptr; }
  template <class... Args>
  void operator()(Duration at, fmt::format_string<Args...> format, Args&&... args) {
    if (out_ == nullptr) return;
    fmt::print(out_, "{:10.6f}  ", to_seconds(at));
    fmt::print(out_, format, std::forward<Args>(args)...);
    std::fputc('\n', out_);
  }

 private:
  std::FILE* out_;
};

}  // namespace baton::sim
