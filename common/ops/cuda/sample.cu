#include <algorithm>
#include <cassert>

#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/logprobs.cuh"
#include "common/ops/philox.h"

namespace baton::ops {
namespace {

constexpr float kGreedyBelow = 1e-5f;

// A SampleRow as the kernel reads it, lists included, in page-locked host memory.
struct RowParams {
  const LogitBias* bias;  // equal tokens stand together
  const TokenCount* counts;
  const TokenId* banned;
  TokenId* drawn;  // or null
  float* edited;   // where to edit a copy of the logits; null: in their place
  uint64_t draw;   // the random bits
  uint32_t num_bias, num_counts, num_banned;
  uint32_t logits_row, top_k, top_logprobs;
  float temperature, top_p, min_p;
  float repetition_penalty, presence_penalty, frequency_penalty;
  uint32_t greedy, want_logprobs;
};
static_assert(sizeof(RowParams) % 4 == 0 && sizeof(RowParams) <= 4 * kRowThreads);

__device__ __forceinline__ bool in_vocab(TokenId token, uint32_t vocab) {
  return static_cast<uint32_t>(token) < vocab;
}

// Of a run of equal tokens one thread adds all, in the list's order.
__device__ __forceinline__ void add_bias(const RowParams& p, uint32_t vocab, float* x) {
  for (uint32_t i = threadIdx.x; i < p.num_bias; i += kRowThreads) {
    const TokenId token = p.bias[i].token;
    if (!in_vocab(token, vocab) || (i > 0 && p.bias[i - 1].token == token)) continue;
    float v = x[token];
    for (uint32_t j = i; j < p.num_bias && p.bias[j].token == token; ++j) v += p.bias[j].bias;
    x[token] = v;
  }
}

__device__ __forceinline__ float penalize(const RowParams& p, const TokenCount& c, float logit) {
  if (c.in_prompt + c.in_output > 0) {
    logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
  }
  if (c.in_output > 0) {
    logit -= p.frequency_penalty * static_cast<float>(c.in_output) + p.presence_penalty;
  }
  return logit;
}

// Bias, penalties and bans, in this order. Returns where the edited row is.
__device__ __forceinline__ float* edit_logits(const RowParams& p, uint32_t vocab, float* logits) {
  float* x = logits;
  if (p.edited != nullptr) {
    x = p.edited;
    for (uint32_t i = threadIdx.x; i < vocab; i += kRowThreads) x[i] = logits[i];
    __syncthreads();
  }
  add_bias(p, vocab, x);
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < p.num_counts; i += kRowThreads) {
    const TokenCount c = p.counts[i];
    if (in_vocab(c.token, vocab)) x[c.token] = penalize(p, c, x[c.token]);
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < p.num_banned; i += kRowThreads) {
    if (in_vocab(p.banned[i], vocab)) x[p.banned[i]] = minus_infinity();
  }
  __syncthreads();
  return x;
}

// The filters one after the other, each on what the one before it left, and the draw. `likeliest`:
// the row's greatest logit, finite.
__device__ __forceinline__ TokenId draw(const RowParams& p, const float* x, uint32_t vocab,
                                        uint64_t likeliest, SelectionMemory& memory) {
  // What weighs less than 2^-10 of the likeliest is seldom asked for; the rest are mostly few.
  constexpr uint64_t kFirstWindow = uint64_t{0x3a800000} << 32;
  const WeightKeys keys = {.max = logit_of(likeliest),
                           .scale = 1.0f / p.temperature,
                           .floor = fmaxf(WeightKeys::kSmallest, fminf(p.min_p, 1.0f))};
  Selection<WeightKeys> selection(x, vocab, keys, memory);
  uint32_t count;
  uint64_t mass;
  selection.survey(kFirstWindow, count, mass);
  if (count == 0) return token_of(likeliest);  // a temperature that is no number
  if (p.top_k > 0 && p.top_k < count) mass = selection.at_rank(p.top_k).mass;
  if (p.top_p < 1.0f) {
    const double wanted = ceil(static_cast<double>(mass) * fmaxf(p.top_p, 0.0f));
    mass = selection.at_mass(min(max(static_cast<uint64_t>(wanted), uint64_t{1}), mass)).mass;
  }
  return token_of(selection.at_mass(__umul64hi(p.draw, mass) + 1).key);
}

// A block a row of logits [*, vocab]. A greedy row is read once; one that is drawn from three times
// as a rule, and some times more where the draw falls among the unlikely. The first time from
// memory; then the roof is what a multiprocessor gets from L2.
__global__ void __launch_bounds__(kRowThreads, 1)
    sample_rows(const RowParams* rows, float* logits, int64_t stride, uint32_t vocab,
                SampleResult* results) {
  __shared__ SelectionMemory memory;
  __shared__ RowParams p;
  if (threadIdx.x < sizeof(RowParams) / 4) {  // the host's: no other kernel writes it
    reinterpret_cast<uint32_t*>(&p)[threadIdx.x] =
        reinterpret_cast<const uint32_t*>(rows + blockIdx.x)[threadIdx.x];
  }
  wait_for_inputs();
  let_next_start();
  __syncthreads();
  float* raw = logits + p.logits_row * stride;
  const float* x = edit_logits(p, vocab, raw);
  const uint64_t likeliest = row_max(x, vocab, memory.of_warp);
  TokenId token = token_of(likeliest);
  if (!p.greedy && is_finite(logit_of(likeliest))) token = draw(p, x, vocab, likeliest, memory);
  SampleResult* result = results + blockIdx.x;
  if (threadIdx.x == 0) {
    result->token = token;
    result->logprob = 0;
    result->num_top = 0;
    if (p.drawn != nullptr) *p.drawn = token;
  }
  if (p.want_logprobs) report_logprobs(raw, vocab, token, p.top_logprobs, memory, result);
}

bool bans_hold(const SampleRow& row) { return row.output_tokens < row.params->min_tokens; }

bool edits_copy(const SampleRow& row) {
  if (!row.params->want_logprobs) return false;  // otherwise they are of the logits as they came
  return !row.logit_bias.empty() || !row.counts.empty() ||
         (bans_hold(row) && !row.banned_until_min.empty());
}

// Lays rows and lists out in the stage, one after the other.
class Packer {
 public:
  static size_t bytes(std::span<const SampleRow> rows) {
    size_t sum = rows.size() * sizeof(RowParams);
    for (const SampleRow& row : rows) {
      sum +=
          row.logit_bias.size_bytes() + row.counts.size_bytes() + row.banned_until_min.size_bytes();
    }
    return sum;
  }

  Packer(std::byte* stage, size_t rows) : at_(stage + rows * sizeof(RowParams)) {}

  RowParams pack(const SampleRow& row, float* edited) {
    const SamplingParams& s = *row.params;
    const auto banned = bans_hold(row) ? row.banned_until_min : std::span<const TokenId>();
    LogitBias* bias = append(row.logit_bias);
    const auto by_token = [](const LogitBias& a, const LogitBias& b) { return a.token < b.token; };
    LogitBias* end = bias + row.logit_bias.size();
    if (!std::is_sorted(bias, end, by_token)) std::stable_sort(bias, end, by_token);
    return {.bias = bias,
            .counts = append(row.counts),
            .banned = append(banned),
            .drawn = row.drawn,
            .edited = edited,
            .draw = draw_bits(s.seed, row.choice, row.position, 0),
            .num_bias = static_cast<uint32_t>(row.logit_bias.size()),
            .num_counts = static_cast<uint32_t>(row.counts.size()),
            .num_banned = static_cast<uint32_t>(banned.size()),
            .logits_row = row.logits_row,
            .top_k = s.top_k,
            .top_logprobs = s.logprobs,
            .temperature = s.temperature,
            .top_p = s.top_p,
            .min_p = s.min_p,
            .repetition_penalty = s.repetition_penalty,
            .presence_penalty = s.presence_penalty,
            .frequency_penalty = s.frequency_penalty,
            .greedy = s.temperature < kGreedyBelow,
            .want_logprobs = s.want_logprobs};
  }

 private:
  template <class T>
  T* append(std::span<const T> list) {
    static_assert(alignof(T) <= 4 && sizeof(T) % 4 == 0);
    T* to = reinterpret_cast<T*>(at_);
    std::copy(list.begin(), list.end(), to);
    at_ += list.size_bytes();
    return to;
  }

  std::byte* at_;
};

}  // namespace

void cuda_sample(Stream& stream, const Tensor& logits, std::span<const SampleRow> rows,
                 std::span<SampleResult> results) {
  assert(rows.size() == results.size());
  if (rows.empty()) return;
  CudaStream& cuda = cuda_stream(stream);
  const auto copies = static_cast<size_t>(std::count_if(rows.begin(), rows.end(), edits_copy));
  const auto vocab = static_cast<size_t>(logits.cols);
  float* edited = nullptr;
  if (copies > 0) {
    edited = reinterpret_cast<float*>(
        cuda.scratch(CudaStream::Use::kSample, copies * vocab * sizeof(float)));
  }
  std::byte* stage = cuda.stage(Packer::bytes(rows));
  auto* params = reinterpret_cast<RowParams*>(stage);
  Packer packer(stage, rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool copy = edits_copy(rows[i]);
    params[i] = packer.pack(rows[i], copy ? edited : nullptr);
    if (copy) edited += vocab;
  }
  launch(cuda, static_cast<unsigned>(rows.size()), kRowThreads, 0, sample_rows, params,
         logits.as<float>(), logits.row_stride, static_cast<uint32_t>(vocab), results.data());
}

}  // namespace baton::ops
