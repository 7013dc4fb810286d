#pragma once

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/engine/request.h"
#include "common/ops/ops.h"

namespace baton::prefill {

struct PrefillRequest {
  engine::Request request;
  int32_t prompt_logprobs = -1;  // >= 0: score the prompt, with so many alternatives a token
  bool sample = true;            // false: only the scores are wanted
  bool hand_off = false;         // another worker reads the KV: report layers as they are done
};

struct SchedulerConfig {
  engine::StepLimits limits;
  uint32_t max_queue = 1024;    // requests that wait; resumed ones may be as many again
  uint32_t chunk_tokens = 512;  // prompt tokens in a step, at least one block; 0: the step's rows
  uint64_t layer_token_bytes = 0;  // of the KV cache
  bool always_digest = false;  // digests also for what is not handed off, so that it can be later
};

// The request has its blocks and goes into its first step.
struct Started {
  RequestKey key;
  uint32_t cached_tokens = 0;  // found in the prefix cache
  Duration queued{};
};

// Layers of consecutive blocks are final (only for requests to be handed off). In sequence order
// for each layer; what the prefix cache held comes first. The spans are valid until the next call.
struct LayersReady {
  RequestKey key;
  uint32_t layer_begin = 0, layer_end = 0;
  uint32_t first_block = 0;           // index in the sequence
  std::span<const BlockId> blocks;    // [num_blocks]
  std::span<const uint64_t> digests;  // [num_layers, num_blocks]
};

// Prompt tokens [begin, end) are computed.
struct ChunkDone {
  RequestKey key;
  uint32_t begin = 0, end = 0;
};

struct FirstToken {
  uint32_t choice = 0;
  ops::SampleResult result;
};

// The prompt is computed, and its blocks are held until take() or release().
struct PromptDone {
  RequestKey key;
  std::vector<FirstToken> first_tokens;          // [num_choices], or none if nothing was sampled
  std::vector<ops::SampleResult> prompt_scores;  // of tokens 1, 2, ... if asked for
  uint32_t cached_tokens = 0;
  Duration queued{};    // from arrival to the first step's planning
  Duration computed{};  // from there to now
};

// Its deadline has passed before its prompt was computed; nothing is held any more.
struct Expired {
  RequestKey key;
};

using Event = std::variant<Started, LayersReady, ChunkDone, PromptDone, Expired>;
using Events = std::vector<Event>;

// Prompts that came, ever.
struct Taken {
  uint64_t prompts = 0;
  uint64_t tokens = 0;
  uint64_t cached_tokens = 0;  // found, of those that were begun

  Taken& operator+=(const Taken& other) {
    prompts += other.prompts;
    tokens += other.tokens;
    cached_tokens += other.cached_tokens;
    return *this;
  }
};

struct Snapshot {
  uint32_t waiting = 0;        // requests without blocks
  uint32_t running = 0;        // requests with blocks, prompt not yet computed
  uint32_t held = 0;           // prompts computed, blocks still here
  uint32_t held_blocks = 0;    // of those, shared ones counted for each
  uint64_t queued_tokens = 0;  // prompt tokens not yet in a step, cached ones included
  uint64_t prompt_tokens = 0;  // of all requests that were started
  uint64_t cached_tokens = 0;  // of those, found in the prefix cache
};

}  // namespace baton::prefill
