#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/ids.h"

namespace baton::ops {

// The tokens that may be drawn from one row of logits, narrowed filter by filter, in the order of
// vLLM: min_p, then top_k, then top_p over what top_k left.
//
// A token's weight e^((x - max) / temperature) is counted in whole units of 2^-44, so masses are
// integers: their sums do not depend on the order, and the vocabulary need not be sorted. Only the
// heaviest tokens are ever gathered, as many as a question needs; a weight below one unit is never
// drawn. Candidates are ordered by weight, descending, ties to the lowest id.
class Candidates {
 public:
  // Bytes of scratch for one row.
  static size_t scratch_bytes(size_t vocab) { return vocab * (4 + 4 + 8); }

  // `max`: the largest of x[0..vocab), finite. `scratch`: scratch_bytes(vocab), 8-byte aligned.
  Candidates(const float* x, size_t vocab, float max, float temperature, std::byte* scratch);

  // Drops those less likely than `min_p` times the likeliest. 0: off. Before the other filters.
  void keep_min_p(float min_p);
  // Keeps the `k` likeliest. 0: off.
  void keep_top_k(uint32_t k);
  // Keeps the likeliest whose probabilities first sum to `p`; at least one. 1: off.
  void keep_top_p(float p);
  // The first candidate whose cumulative mass exceeds bits / 2^64 of the whole.
  TokenId pick(uint64_t bits);

 private:
  uint64_t total_mass();
  template <class Enough>
  void gather_until(Enough&& enough);
  void cut(size_t count);
  size_t prefix_reaching(uint64_t mass);

  float* weights_;  // [vocab]
  TokenId* ids_;    // [vocab]
  uint64_t* keys_;  // [vocab]: weight's bits << 32 | ~id, so that greater is likelier
  size_t vocab_;
  float floor_;      // lighter tokens are out
  float threshold_;  // all tokens of this weight or more are gathered
  size_t gathered_ = 0;
  uint64_t gathered_mass_ = 0;
  uint64_t kept_mass_ = 0;  // of all candidates, gathered or not; 0: not summed yet
  bool complete_ = false;   // what is gathered is all that is kept
};

}  // namespace baton::ops
