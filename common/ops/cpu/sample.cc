#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>

#include "common/ops/cpu/candidates.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/vocab_row.h"
#include "common/ops/philox.h"

namespace baton::ops {
namespace {

constexpr float kGreedyBelow = 1e-5f;

bool in_vocab(TokenId token, size_t vocab) {
  return token >= 0 && static_cast<size_t>(token) < vocab;
}

void apply_penalties(const SamplingParams& p, const TokenCount& count, float& logit) {
  if (count.in_prompt + count.in_output > 0) {
    logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
  }
  if (count.in_output > 0) {
    logit -= p.frequency_penalty * static_cast<float>(count.in_output) + p.presence_penalty;
  }
}

// Bias, penalties and bans, in this order.
void edit_logits(const SampleRow& row, size_t vocab, float* x) {
  for (const LogitBias& b : row.logit_bias) {
    if (in_vocab(b.token, vocab)) x[b.token] += b.bias;
  }
  for (const TokenCount& c : row.counts) {
    if (in_vocab(c.token, vocab)) apply_penalties(*row.params, c, x[c.token]);
  }
  if (row.output_tokens >= row.params->min_tokens) return;
  for (const TokenId banned : row.banned_until_min) {
    if (in_vocab(banned, vocab)) x[banned] = -std::numeric_limits<float>::infinity();
  }
}

TokenId draw(const SampleRow& row, const float* x, size_t vocab, float max, std::byte* scratch) {
  const SamplingParams& p = *row.params;
  Candidates candidates(x, vocab, max, p.temperature, scratch);
  candidates.keep_min_p(p.min_p);
  candidates.keep_top_k(p.top_k);
  candidates.keep_top_p(p.top_p);
  return candidates.pick(draw_bits(p.seed, row.choice, row.position, 0));
}

// `scratch`: the candidates' and behind it room for a row.
SampleResult sample_row(const SampleRow& row, float* logits, size_t vocab, std::byte* scratch) {
  const SamplingParams& p = *row.params;
  float* x = logits;
  if (p.want_logprobs) {  // they are of the logits as the model gave them: edit a copy
    x = reinterpret_cast<float*>(scratch + Candidates::scratch_bytes(vocab));
    std::copy_n(logits, vocab, x);
  }
  edit_logits(row, vocab, x);
  SampleResult result;
  const float max = row_max(x, vocab);
  if (p.temperature < kGreedyBelow || !std::isfinite(max)) {
    result.token = row_find(x, vocab, max);
  } else {
    result.token = draw(row, x, vocab, max, scratch);
  }
  if (p.want_logprobs) report_logprobs(logits, vocab, result.token, p.logprobs, result);
  return result;
}

}  // namespace

void cpu_sample(Stream& stream, const Tensor& logits, std::span<const SampleRow> rows,
                std::span<SampleResult> results) {
  assert(rows.size() == results.size());
  device::CpuStream& cpu = cpu_stream(stream);
  const auto vocab = static_cast<size_t>(logits.cols);
  cpu.pool().parallel_for(rows.size(), [&](size_t i, unsigned thread) {
    const size_t bytes = Candidates::scratch_bytes(vocab) + vocab * sizeof(float);
    std::byte* scratch = cpu.scratch(thread).get<std::byte>(bytes);
    results[i] = sample_row(rows[i], logits.row<float>(rows[i].logits_row), vocab, scratch);
    if (rows[i].drawn != nullptr) *rows[i].drawn = results[i].token;
  });
}

void cpu_score(Stream& stream, const Tensor& logits, std::span<const TokenId> tokens, uint32_t top,
               std::span<SampleResult> results) {
  assert(logits.rows == static_cast<int64_t>(tokens.size()) && tokens.size() == results.size());
  cpu_stream(stream).pool().parallel_for(tokens.size(), [&](size_t i, unsigned) {
    const float* x = logits.row<float>(static_cast<int64_t>(i));
    results[i].token = tokens[i];
    report_logprobs(x, static_cast<size_t>(logits.cols), tokens[i], top, results[i]);
  });
}

}  // namespace baton::ops
