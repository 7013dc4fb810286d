#pragma once

#include "common/ops/cuda/selection.cuh"

namespace baton::ops {

// The log-probability of `token` and of the `top` likeliest under the row's softmax, by one block.
// Reads the row two times, and about three times more where alternatives are asked for.
// `result`: page-locked host memory, written directly.
__device__ __forceinline__ void report_logprobs(const float* x, uint32_t vocab, TokenId token,
                                                uint32_t top, SelectionMemory& memory,
                                                SampleResult* result) {
  const float max = logit_of(row_max(x, vocab, memory.of_warp));
  float log_sum = max;
  if (is_finite(max)) log_sum += logf(row_sum_exp(x, vocab, max, memory.float_of_warp));
  const auto logprob = [&](float logit) {
    const float lp = logit - log_sum;
    return lp > kMinLogprob ? fminf(lp, 0.0f) : kMinLogprob;  // NaN comes to the bound, too
  };
  if (threadIdx.x == 0) result->logprob = logprob(x[token]);
  top = min(min(top, kMaxTopLogprobs), vocab);
  if (threadIdx.x == 0) result->num_top = top;
  if (top == 0) return;
  Selection<LogitKeys> selection(x, vocab, LogitKeys{vocab}, memory);
  selection.at_rank(top);
  if (threadIdx.x < top) {
    const uint64_t key = selection.top(threadIdx.x);
    result->top[threadIdx.x] = {token_of(key), logprob(logit_of(key))};
  }
}

}  // namespace baton::ops
