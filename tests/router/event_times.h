#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace baton::router {

// Nanoseconds of the system's clock, which is what the kernel stamps packets by.
inline int64_t wall_ns() {
  return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
}

// When the token of a stream at an index was in the socket of whoever relays it. Streams carry
// their number as the request's seed. Any thread.
class SendTimes {
 public:
  SendTimes(size_t streams, size_t tokens) : tokens_(tokens), at_(streams * tokens) {}
  void note(size_t stream, size_t index, int64_t ns) {
    if (index < tokens_) at_[stream * tokens_ + index].store(ns, std::memory_order_relaxed);
  }
  // 0: nothing was noted.
  int64_t at(size_t stream, size_t index) const {
    return at_[stream * tokens_ + index].load(std::memory_order_relaxed);
  }
  size_t tokens() const { return tokens_; }

 private:
  size_t tokens_;
  std::vector<std::atomic<int64_t>> at_;  // [streams, tokens]
};

}  // namespace baton::router
