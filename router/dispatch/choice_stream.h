#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/ids.h"
#include "common/proto/worker.pb.h"

namespace baton::router {

struct ChoiceEnd {
  proto::FinishReason reason = proto::FINISH_STOP;
  TokenId stop_token = -1;  // the id that ended it; -1: none
};

// The tokens of one choice, put in order and each taken once, whichever worker sent them: the first
// comes from prefill, later ones from decode, and a repeated leg sends some again.
class ChoiceStream {
 public:
  explicit ChoiceStream(uint32_t max_tokens) : max_tokens_(max_tokens) {}

  // Appends to `ready` what can be delivered now: nothing if it is a double or waits for an earlier
  // one. False if its index lies beyond max_tokens.
  bool accept(proto::TokenEvent&& event, std::vector<proto::TokenEvent>& ready);

  // The same of one that can be delivered by itself, as nearly all can, which then is the caller's
  // to deliver. False, and nothing is changed: accept() it.
  bool accept_next(const proto::TokenEvent& event);

  // The worker's last word; holds once `output_tokens` tokens are delivered.
  void finish(ChoiceEnd end, uint32_t output_tokens);
  // Set once, when all is delivered; afterwards everything is dropped.
  bool ended() const { return closed_ || (end_ && delivered_.size() >= output_tokens_); }
  const std::optional<ChoiceEnd>& end() const { return end_; }
  // The router's own end: a stop string, or the client's.
  void close() { closed_ = true; }

  // A leg is served anew: what was not delivered is forgotten and will come again.
  void rewind();

  const std::vector<TokenId>& delivered() const { return delivered_; }

 private:
  uint32_t max_tokens_;
  std::vector<TokenId> delivered_;
  std::vector<proto::TokenEvent> early_;  // ascending index, above delivered_.size()
  std::optional<ChoiceEnd> end_;
  uint32_t output_tokens_ = 0;
  bool closed_ = false;
};

}  // namespace baton::router
