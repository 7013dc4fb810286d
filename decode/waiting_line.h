#pragma once

#include <cstdint>
#include <map>
#include <tuple>

#include "decode/types.h"

namespace baton::decode {

// Requests that wait for room: by priority, then arrival, as sequences are served. Only the first
// may be let in, so that a large one is not starved by small ones behind it. They hold nothing.
class WaitingLine {
 public:
  // `serial`: order of those that arrived together.
  void add(DecodeRequest request, uint64_t serial);
  // Whether somebody stands here who would be served before `request`.
  bool goes_behind(const engine::Request& request) const;
  const DecodeRequest& first() const { return line_.begin()->second; }
  DecodeRequest take_first();
  // False: it does not stand here.
  bool remove(const RequestKey& key);
  bool contains(const RequestKey& key) const { return ranks_.contains(key); }
  // Takes out all that are past their deadline.
  void expire(TimePoint now, Events& events);

  bool empty() const { return line_.empty(); }
  uint32_t size() const { return static_cast<uint32_t>(line_.size()); }
  // Of all that stand here.
  uint64_t tokens() const { return tokens_; }
  uint32_t choices() const { return choices_; }

 private:
  using Rank = std::tuple<int32_t, TimePoint, uint64_t>;
  void forget(const DecodeRequest& request);

  std::map<Rank, DecodeRequest> line_;
  std::map<RequestKey, Rank> ranks_;
  uint64_t tokens_ = 0;
  uint32_t choices_ = 0;
};

}  // namespace baton::decode
