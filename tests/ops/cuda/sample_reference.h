#pragma once

#include <algorithm>
#include <numeric>

#include "common/ops/philox.h"
#include "tests/ops/ops_testing.h"

namespace baton::ops {

// What may be drawn and how likely it is, by sorting everything in double.
struct DrawReference {
  std::vector<TokenId> tokens;  // likeliest first
  std::vector<double> upper;    // cumulative probability up to and with each
};

inline DrawReference draw_reference(std::span<const float> x, const SamplingParams& p) {
  const float max = *std::max_element(x.begin(), x.end());
  std::vector<double> w(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    w[i] = std::exp((static_cast<double>(x[i]) - max) / p.temperature);
  }
  DrawReference r;
  r.tokens.resize(x.size());
  std::iota(r.tokens.begin(), r.tokens.end(), 0);
  std::stable_sort(r.tokens.begin(), r.tokens.end(), [&](int a, int b) { return x[a] > x[b]; });
  std::erase_if(r.tokens, [&](int t) { return w[t] < p.min_p; });
  if (p.top_k > 0 && r.tokens.size() > p.top_k) r.tokens.resize(p.top_k);
  const auto cumulate = [&] {
    r.upper.clear();
    double sum = 0;
    for (const TokenId t : r.tokens) r.upper.push_back(sum += w[t]);
    for (double& u : r.upper) u /= sum;
  };
  cumulate();
  if (p.top_p < 1) {
    size_t keep = 1;
    while (keep < r.tokens.size() && r.upper[keep - 1] < p.top_p) ++keep;
    r.tokens.resize(keep);
    cumulate();
  }
  return r;
}

// Whether `token` is what the uniform number `u` picks, but for rounding.
inline bool picks(const DrawReference& r, double u, TokenId token, double rounding) {
  const auto at = std::find(r.tokens.begin(), r.tokens.end(), token) - r.tokens.begin();
  if (static_cast<size_t>(at) == r.tokens.size()) return false;
  const double low = at == 0 ? 0 : r.upper[at - 1], high = r.upper[at];
  return u >= low - rounding && u <= high + rounding;
}

// The same where sums are in f32: a filter's edge may fall on a candidate's other side.
inline testing::AssertionResult draws(std::span<const float> logits, const SamplingParams& params,
                                      uint32_t choice, uint32_t position, TokenId token) {
  constexpr double kRounding = 2e-5;
  const double u = static_cast<double>(draw_bits(params.seed, choice, position, 0)) * 0x1p-64;
  for (const double top_p : {0.0, -kRounding, kRounding}) {
    for (const double min_p : {0.0, -kRounding, kRounding}) {
      SamplingParams near = params;
      if (near.top_p < 1) near.top_p = static_cast<float>(params.top_p + top_p);
      near.min_p = static_cast<float>(params.min_p * (1 + min_p));
      if (picks(draw_reference(logits, near), u, token, kRounding)) {
        return testing::AssertionSuccess();
      }
    }
  }
  const DrawReference r = draw_reference(logits, params);
  const auto at = std::lower_bound(r.upper.begin(), r.upper.end(), u) - r.upper.begin();
  return testing::AssertionFailure()
         << token << " (logit " << logits[token] << ") was drawn, but " << u << " picks "
         << r.tokens[at] << " (logit " << logits[r.tokens[at]] << "), number " << at << " of "
         << r.tokens.size() << "; temperature " << params.temperature << ", top_k " << params.top_k
         << ", top_p " << params.top_p << ", min_p " << params.min_p;
}

}  // namespace baton::ops
