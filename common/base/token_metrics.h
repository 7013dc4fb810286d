#pragma once

#include <cstdint>
#include <vector>

#include "common/base/metrics.h"

namespace baton {

// Tokens and the gaps between them: what is counted for every one, kept here by the one thread that
// counts, and given to the metrics by publish(): a lock and some atomic additions for many tokens,
// not for each.
class TokenMetrics {
 public:
  // Of histogram's bounds. Both outlive this.
  TokenMetrics(prometheus::Counter& tokens, prometheus::Histogram& gaps,
               const std::vector<double>& bounds)
      : tokens_(tokens), gaps_(gaps), bounds_(bounds), counts_(bounds.size() + 1) {}

  void add_token() { ++new_tokens_; }
  // All that were ever added, published or not.
  uint64_t tokens() const { return static_cast<uint64_t>(tokens_.Value()) + new_tokens_; }
  void add_gap(double seconds);
  // What is new since it was called last goes to the metrics.
  void publish();

 private:
  prometheus::Counter& tokens_;
  prometheus::Histogram& gaps_;
  const std::vector<double>& bounds_;
  uint64_t new_tokens_ = 0;
  uint64_t new_gaps_ = 0;
  double sum_ = 0;              // of new gaps
  std::vector<double> counts_;  // of new gaps, by bucket; the last is beyond all bounds
};

}  // namespace baton
