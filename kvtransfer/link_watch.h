#pragma once

#include <cstdint>
#include <unordered_map>

#include "common/base/clock.h"
#include "common/latency/link_model.h"

namespace baton::kvtransfer {

// Learns from a worker's reads what its link takes, waiting behind its other reads included, since
// that is on the link, too. One thread.
class LinkWatch {
 public:
  explicit LinkWatch(const latency::LinkCosts& prior) : model_(prior) {}

  // A read is wanted. Each ends once.
  void wanted(uint64_t cookie, uint64_t bytes, TimePoint now) {
    const latency::LinkLoad load{static_cast<uint32_t>(reads_.size()), bytes_};
    if (reads_.try_emplace(cookie, Read{bytes, load, now}).second) bytes_ += bytes;
  }
  void done(uint64_t cookie, TimePoint now) {
    const auto it = reads_.find(cookie);
    if (it == reads_.end()) return;
    const Read& read = it->second;
    model_.observe(read.bytes, read.load, now - read.since);
    remove(it);
  }
  void failed(uint64_t cookie) {  // teaches nothing
    if (const auto it = reads_.find(cookie); it != reads_.end()) remove(it);
  }

  const latency::LinkModel& model() const { return model_; }

 private:
  struct Read {
    uint64_t bytes = 0;
    latency::LinkLoad load;  // when it was wanted
    TimePoint since;
  };
  using Reads = std::unordered_map<uint64_t, Read>;  // by cookie

  void remove(Reads::iterator it) {
    bytes_ -= it->second.bytes;
    reads_.erase(it);
  }

  latency::LinkModel model_;
  Reads reads_;
  uint64_t bytes_ = 0;  // of these
};

}  // namespace baton::kvtransfer
