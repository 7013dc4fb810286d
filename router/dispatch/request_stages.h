#pragma once

#include <optional>

#include "common/base/clock.h"
#include "router/dispatch/actions.h"

// Where a request's time went, for metrics, the access log and traces. Pure.
namespace baton::router {

// When the first two tokens of its first choice were in the socket to the client, if they were
// written as they came.
struct WrittenTokens {
  std::optional<TimePoint> first, second;
};

// Each stage by the clock of the process that it is in. What is not known, or does not apply, is
// nothing. What no process has measured of a sum is in its last stage. Where a client read the
// first token late, the second sum's stages are more than it: they had gone by.
struct RequestStages {
  // From receipt to the first token.
  std::optional<Duration> parse, admission, reserve, prefill_queue, prefill;
  std::optional<Duration> relay;  // messages both ways, and the writing: the rest

  // From there to the second token, of a request whose KV was handed over.
  std::optional<Duration> parked, exposed_transfer;
  std::optional<Duration> decode_queue, first_step;  // decode has to say so; else in the rest
  std::optional<Duration> handover_relay;            // in the router, to the socket
  std::optional<Duration> handover_rest;             // the commit's and the token's way

  // The second sum, if it is known.
  std::optional<Duration> handover;
};

RequestStages stages_of(const RequestTrail& trail, TimePoint received,
                        const WrittenTokens& written);

}  // namespace baton::router
