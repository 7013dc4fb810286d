#pragma once

#include <cstdint>
#include <string_view>

#include "common/base/record_file.h"
#include "router/dispatch/actions.h"
#include "router/placement/attainment.h"

namespace baton::router {

// How each request of the completions and chat API went, once it is over: figures and names of
// workers, nothing of what was said. The io_context's thread.
class RequestRecord {
 public:
  static constexpr std::string_view kHeader =
      "arrival_s,placed_s,prompt_tokens,output_tokens,prefill,decode,ttft_s,tpot_s,outcome";

  // Times in the file are from `begun` on.
  RequestRecord(RecordFile file, TimePoint begun) : file_(std::move(file)), begun_(begun) {}

  struct Request {
    TimePoint received;
    uint32_t prompt_tokens = 0, output_tokens = 0;
    const RequestTrail& trail;  // of its last placement
    Measured measured;          // of its worst choice
    std::string_view outcome;   // "ok", or why not
  };
  void add(const Request& request);

 private:
  RecordFile file_;
  TimePoint begun_;
};

}  // namespace baton::router
