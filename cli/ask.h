#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton::cli {

struct AskTimings {
  Duration ttft{};  // from sending to the first text
  Duration tpot{};  // mean, after the first token
  uint64_t output_tokens = 0;
  uint64_t prompt_tokens = 0;
  uint64_t kv_bytes = 0;     // read by the decode worker
  std::string kv_transport;  // empty: nothing crossed
  std::string prefill_worker, decode_worker;
};

// Sends one chat message to a router on this machine and prints the answer as it streams, to
// standard output. Blocks until the answer ends; `timeout` bounds all of it.
struct Question {
  std::string model;
  std::string prompt;
  std::string api_key;  // empty: none
  uint32_t max_tokens = 200;
};
result<AskTimings> ask(uint16_t port, const Question& question, Duration timeout);

// True if the router at this port can serve requests now. Blocks for 200 ms at most.
bool is_ready(uint16_t port);

}  // namespace baton::cli
