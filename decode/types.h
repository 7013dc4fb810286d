#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/engine/request.h"
#include "common/ops/ops.h"

namespace baton::decode {

struct DecodeRequest {
  engine::Request request;
  // What this worker's own cache need not receive again is a multiple of this, or the whole prompt.
  uint32_t granule_tokens = 1;
  bool may_wait = false;  // if there is no room, a place in line will do
};

struct SchedulerConfig {
  engine::StepLimits limits;
  uint32_t vocab_size = 0;  // the model's; every token lies below it
  // Admission leaves free: watermark_blocks, and growth_blocks for each sequence that runs or is
  // awaited. An idle worker takes whatever fits.
  uint32_t watermark_blocks = 8;
  uint32_t growth_blocks = 1;
  uint32_t max_waiting = 256;  // requests in line
  // Preempts the newest sequence each so many steps; for tests. 0: never.
  uint32_t preempt_every_n_steps = 0;
};

// Room for a prompt whose KV will come. Blocks [first_lacking_block, end) are to be written; what
// is before them is here already.
struct Granted {
  std::vector<BlockId> blocks;  // the prompt's table
  uint32_t first_lacking_block = 0;
};
// No room now; perhaps after this time.
struct Full {
  Duration retry_after{};
};
// No room now, but a place in line: Admitted or Expired follows, unless it is cancelled.
struct Waiting {
  Duration estimate{};
};
using Reservation = std::variant<Granted, Waiting, Full>;

// Room for one that stood in line.
struct Admitted {
  RequestKey key;
  Granted granted;
};

// One token of one choice. In order for each choice, each once; index 0 is prefill's.
struct Token {
  RequestKey key;
  uint32_t choice = 0;
  uint32_t index = 0;  // in the output
  ops::SampleResult result;
};

// After the last token of a choice.
struct Finished {
  RequestKey key;
  uint32_t choice = 0;
  engine::Finish finish;
  uint32_t output_tokens = 0;  // prefill's and resumed ones included
};

// Out of room: this choice holds nothing here any more. It goes on as a request of a new
// generation, whose tokens are the prompt and `output`.
struct Preempted {
  RequestKey key;
  uint32_t choice = 0;
  std::vector<TokenId> output;  // all delivered so far
};

// The deadline has passed; the request holds nothing any more. As with cancel(), blocks of a
// reservation are in quarantine.
struct Expired {
  RequestKey key;
  bool reserved = false;  // its KV had not come yet
};

using Event = std::variant<Token, Finished, Preempted, Expired, Admitted>;
using Events = std::vector<Event>;

struct Snapshot {
  uint32_t running = 0;    // sequences
  uint64_t context = 0;    // tokens of these, together
  uint32_t reserved = 0;   // requests whose KV is awaited
  uint32_t waiting = 0;    // requests in line
  uint32_t ending = 0;     // sequences that are over but in a step still
  uint64_t preempted = 0;  // sequences, ever
};

}  // namespace baton::decode
