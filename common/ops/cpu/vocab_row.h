#pragma once

#include <cstddef>
#include <span>

#include "common/ops/ops.h"

// Passes over one row of logits, [vocab]. A NaN counts as minus infinity. Sums are in the fixed
// order of simd-inl.h.
namespace baton::ops {

// The largest; minus infinity if there is none.
float row_max(const float* x, size_t n);
// The lowest index that holds `value`; 0 if none does.
TokenId row_find(const float* x, size_t n, float value);
// Sum of e^(x[i] - max); 0 if max is not finite.
float row_sum_exp(const float* x, size_t n, float max);
// w[i] = e^((x[i] - max) * scale).
void row_weights(const float* x, size_t n, float max, float scale, float* w);
// Writes the indices i with x[i] >= threshold, ascending, and returns how many there are.
size_t row_select(const float* x, size_t n, float threshold, TokenId* ids);
// The `count` largest, descending, ties to the lowest id; fewer if the row is shorter.
size_t row_top(const float* x, size_t n, size_t count, TokenLogprob* top);

// The log-probability of `token` and of the `top` likeliest under the row's softmax.
void report_logprobs(const float* x, size_t n, TokenId token, uint32_t top, SampleResult& result);

}  // namespace baton::ops
