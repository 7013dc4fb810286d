#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton::sim {

// Requests as a file has them: lengths, and perhaps when they came and what prompts they share.
struct TraceFile {
  struct Entry {
    Duration at{};                           // from the first one's; ascending
    uint32_t input_tokens = 0;               // at least 1
    uint32_t output_tokens = 0;              // at least 1
    size_t first_block = 0, num_blocks = 0;  // of `blocks`
  };
  std::string name;  // for people
  bool has_arrivals = false;
  // Prompts are made of blocks: two that begin with equal ids begin with equal tokens.
  std::vector<uint64_t> blocks;
  uint32_t block_tokens = 0;   // 0: prompts share nothing
  std::vector<Entry> entries;  // at least one
  struct Phase {
    std::string name;
    size_t first_entry = 0;
  };
  std::vector<Phase> phases;  // of traffic that shifts; none: it is not told

  uint32_t longest_output() const;
  double mean_input() const;
  double mean_output() const;
};

// One of these, told by how it begins:
//   TIMESTAMP,ContextTokens,GeneratedTokens         Azure's: "2023-11-16 18:17:03.9799600,4808,10"
//   {"timestamp": ms, "input_length": …, "output_length": …, "hash_ids": […]}   Mooncake's JSON
//     lines: an id a block of 512 tokens
//   num_prefill_tokens,num_decode_tokens,…          lengths only (ShareGPT's)
// Requests without a prompt or an output are taken as of one token: some traces have a few. The
// last line may lack its newline. Errors name `from` and the line.
result<TraceFile> parse_trace(std::string_view text, std::string_view from);
// A file, or "lengths:IN,OUT": lengths that are drawn, independent and log-normal with those means
// and a standard deviation equal to the mean; at most 16 times it, at least 1. The same ones each
// time. (Shapes of published traces are near that: chat is a little wider, code narrower.)
// "fixed:IN,OUT": all of that length. "phases:SECONDSxRATE:IN,OUT/…": phases.h.
result<TraceFile> read_trace(const std::string& what);

}  // namespace baton::sim
