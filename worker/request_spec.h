#pragma once

#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/engine/request.h"
#include "common/proto/worker.pb.h"

namespace baton::worker {

// What this worker can hold.
struct RequestLimits {
  uint32_t vocab_size = 0;
  std::vector<TokenId> eos;  // the model's
  uint32_t max_context = 0;
  uint32_t max_choices = 128;       // in one request
  uint32_t max_first_choice = 127;  // a request may be for the last of its choices only
  uint32_t max_stop_tokens = 256;
  uint32_t max_logit_bias = 4096;
};

// kInvalidArgument naming the field: a router checks all this before, so it is a bug or an attack.
result<engine::Request> parse_spec(const proto::RequestSpec& spec, RouterId router,
                                   const RequestLimits& limits, TimePoint now);

}  // namespace baton::worker
