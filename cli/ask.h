#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton::cli {

struct AskTimings {
  std::optional<Duration> ttft;  // from sending to the first text; none without text
  std::optional<Duration> tpot;  // mean, after the first token; none without a second
  uint64_t output_tokens = 0;
  uint64_t prompt_tokens = 0;
  uint64_t kv_bytes = 0;     // read by the decode worker
  std::string kv_transport;  // empty: nothing crossed
  std::string prefill_worker, decode_worker;
};

struct Question {
  std::string model;
  std::string prompt;
  std::string api_key;  // empty: none
  uint32_t max_tokens = 200;
};

// A router, as a client reaches it.
struct RouterAddress {
  std::string host;  // a name or an address, without brackets
  uint16_t port = 0;
};

// Sends one chat message to a router and prints the answer as it streams, to standard output.
// Blocks until the answer ends; `timeout` bounds all of it.
result<AskTimings> ask(const RouterAddress& router, const Question& question, Duration timeout);

// True if the router can serve requests now. Blocks for 200 ms at most, and for as long as a name
// takes to resolve.
bool is_ready(const RouterAddress& router);

}  // namespace baton::cli
