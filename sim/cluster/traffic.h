#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "sim/cluster/trace_file.h"

namespace baton::sim {

// When requests come.
struct Arrivals {
  enum class Kind : uint8_t { kTrace, kPoisson, kGamma };
  Kind kind = Kind::kPoisson;
  double cv = 1;  // kGamma: of the time between two

  std::string to_string() const;
};
// "trace", "poisson" or "gamma:CV".
result<Arrivals> parse_arrivals(std::string_view text);

struct TrafficOptions {
  Arrivals arrivals;
  double rate = 0;     // requests a second; 0: the trace's own
  uint64_t count = 0;  // requests; 0: as many as the trace has
  uint64_t seed = 1;
};

// The requests of one run. A trace that has prompts in common, or arrivals that are used, is played
// in its order, again from its start if more are asked for (then prompts share nothing with those
// of the round before); else the lengths of each are drawn from it. Outlived by the trace.
class Traffic {
 public:
  // kInvalidArgument: arrivals of a trace that has none, or no rate.
  static result<Traffic> make(const TraceFile& trace, const TrafficOptions& options);

  size_t size() const { return items_.size(); }
  Duration at(size_t i) const { return items_[i].at; }
  uint32_t input_tokens(size_t i) const { return entry(i).input_tokens; }
  uint32_t output_tokens(size_t i) const { return entry(i).output_tokens; }
  uint32_t longest_output() const { return longest_output_; }
  bool shares_prompts() const { return trace_->block_tokens > 0; }  // some begin alike
  double rate() const;                                              // requests a second

  // Tokens in [first, first + count): where two requests share blocks, equal ones.
  void prompt(size_t i, TokenId first, uint32_t count, std::vector<TokenId>& out) const;

 private:
  struct Item {
    Duration at;
    uint32_t entry = 0, round = 0;
  };
  static void fill(uint64_t seed, TokenId first, uint32_t count, std::span<TokenId> out);
  const TraceFile::Entry& entry(size_t i) const { return trace_->entries[items_[i].entry]; }

  const TraceFile* trace_ = nullptr;
  uint32_t longest_output_ = 0;
  std::vector<Item> items_;
};

}  // namespace baton::sim
