#include <cassert>

#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/logprobs.cuh"

namespace baton::ops {
namespace {

// A block a row of logits [rows, vocab], which stay as they are. Moves 4 * vocab bytes a row from
// memory once and from L2 some times more; the roof is what a multiprocessor gets from L2.
__global__ void __launch_bounds__(kRowThreads, 1)
    score_rows(const float* logits, int64_t stride, uint32_t vocab, const TokenId* tokens,
               uint32_t top, SampleResult* results) {
  __shared__ SelectionMemory memory;
  wait_for_inputs();
  let_next_start();
  const TokenId token = tokens[blockIdx.x];
  SampleResult* result = results + blockIdx.x;
  if (threadIdx.x == 0) result->token = token;
  report_logprobs(logits + blockIdx.x * stride, vocab, token, top, memory, result);
}

}  // namespace

void cuda_score(Stream& stream, const Tensor& logits, std::span<const TokenId> tokens, uint32_t top,
                std::span<SampleResult> results) {
  assert(logits.rows == static_cast<int64_t>(tokens.size()) && tokens.size() == results.size());
  if (tokens.empty()) return;
  launch(cuda_stream(stream), static_cast<unsigned>(logits.rows), kRowThreads, 0, score_rows,
         logits.as<float>(), logits.row_stride, static_cast<uint32_t>(logits.cols), tokens.data(),
         top, results.data());
}

}  // namespace baton::ops
