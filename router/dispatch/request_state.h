#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "router/dispatch/actions.h"
#include "router/placement/placement.h"

namespace baton::router {

struct RequestState;

// A part of a request that is served by one placement. A request starts as one leg of all its
// choices. A leg that fails before any of its tokens was delivered is served anew, with the next
// generation; afterwards each unfinished choice goes on as a leg of its own, from the tokens
// delivered. On the wire a leg is a request: two legs never share an id, so that a worker never
// takes one for a newer generation of the other.
struct Leg {
  enum class State { kQueued, kReserving, kRunning };

  RequestId id;                   // on the wire
  RequestId request;              // of the client
  RequestState* whole = nullptr;  // which outlives it
  Generation generation{1};
  uint32_t first_choice = 0;
  uint32_t num_choices = 1;

  State state = State::kQueued;
  Placement placement;                 // while reserving or running
  TimePoint queue_deadline;            // to be granted
  TimePoint submitted_at;              // since when prefill has it
  TimePoint reserve_deadline;          // while reserving
  std::vector<TokenId> tokens;         // of a resume: delivered ones after the prompt; else empty
  uint64_t counted_prompt_tokens = 0;  // as queued on the prefill worker
  uint64_t counted_tokens = 0;         // as held on the decode worker
  uint64_t counted_output = 0;         // tokens expected of it there
  uint64_t counted_stay = 0;           // these by the tokens held
  uint32_t thought_cached = 0;         // tokens that prefill was thought to hold
  bool handed_off = false;             // decode has all it needs of prefill
  bool progressed = false;             // a token of this generation arrived
  bool may_wait = false;               // while reserving: a place in line was asked for
  bool waiting = false;                // running, and decode has no room for it yet
  // Its decode worker was lost, and the KV that prefill has, or still computes, waits for another:
  // queued, or reserving one. placement.prefill is where, until kv_until.
  bool seeking = false;
  TimePoint kv_until;
  Generation submitted, at_prefill;  // when prefill got it, and by which it knows the leg now
  uint32_t retries = 0;
  uint32_t sinks_lost = 0;  // as often as it may be retried, it may lose its decode worker
  uint32_t preemptions = 0;
  WorkerId avoid;               // failed it last
  std::vector<uint32_t> moved;  // choices that were preempted and are served by other legs

  uint32_t end_choice() const { return first_choice + num_choices; }
  bool has(uint32_t choice) const;
};

// Whether workers have something of it.
inline bool is_placed(const Leg& leg) { return leg.state != Leg::State::kQueued || leg.seeking; }

// How far it has come: queue, reserve, prefill, parked (a token is there, decode has no room),
// transfer (decode still reads) or decode.
std::string_view stage_of(const Leg& leg);

struct RequestState {
  RequestInput input;
  SetId set;                     // that serves it, or did last
  uint64_t arrival = 0;          // order among those that wait and are due at once
  std::vector<uint64_t> prefix;  // PrefixMap::hash() of the prompt
  std::vector<ChoiceStream> choices;
  std::vector<RequestId> legs;
  bool scores_delivered = false;
  RequestTrail trail;

  bool wants_scores() const { return input.prompt_logprobs >= 0 && !scores_delivered; }
  // Every choice has ended, and the prompt's scores are there if asked for.
  bool ended() const;
};

// The message both sides of a hand-off get about a leg.
proto::RequestSpec make_spec(const RequestState& request, const Leg& leg, TimePoint now);

}  // namespace baton::router
