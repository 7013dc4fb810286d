#include "router/placement/estimate.h"

#include <algorithm>
#include <cmath>

#include "common/latency/step_model.h"

namespace baton::router {
namespace {

constexpr double kNominalToken = 1e-4;  // seconds, of a worker that says nothing
constexpr double kNominalStep = 1e-2;
// The share of prompts is taken over about as long as a stream lives: over longer, many prompts at
// once would look like few, and stall the streams beside them all their life.
constexpr double kShortestLife = 0.2, kLongestLife = 5;  // seconds
constexpr double kMostShare = 0.95;
constexpr double kShortestPast = 0.25;  // of a stream's life: a few prompts at once are no rate
constexpr double kForgotten = 0.02;     // of a prompt: what is left of those before it
constexpr uint64_t kLocalTokens = 512;  // of a prompt that a decode worker computes, at most; about
constexpr double kSure = 1.3;           // deviations: as in 9 of 10 cases

}  // namespace

double step_seconds(const WorkerView& view, double sequences, double context) {
  if (!view.known()) return kNominalStep * (1 + sequences / view.max_sequences);
  return to_seconds(latency::step_time(
      view.costs, latency::StepWork::decode(static_cast<uint64_t>(std::lround(sequences)),
                                            static_cast<uint64_t>(std::lround(context)))));
}

namespace {

// What decoding rows add to each step that a prompt's chunk takes.
double riding_seconds(const WorkerView& view, double sequences, double context) {
  if (!view.known() || sequences < 0.5) return 0;
  return std::max(0.0, step_seconds(view, sequences, context) - view.costs.fixed);
}

// Wait for blocks and a place in the batch, at the rate at which those that are there end.
double room_wait(const WorkerView& view, const RequestShape& shape, double sequences, double step) {
  const double block = view.block_tokens;
  const double needs = (static_cast<double>(shape.tokens) + shape.output) / block;
  const double lacks = needs - view.free_blocks;
  const double over = sequences + shape.choices - view.max_sequences;
  if (lacks <= 0 && over <= 0) return 0;
  // Whole ones end; a sequence frees what it holds on average.
  const double ends = std::max(1.0, static_cast<double>(view.sequences)) / (shape.output * step);
  const double held =
      view.total_blocks > view.free_blocks ? view.total_blocks - view.free_blocks : 1;
  const double freed = std::max(1.0, held / std::max(1u, view.sequences));
  const double for_blocks = lacks > 0 ? std::ceil(lacks / freed) : 0.0;
  return std::max(for_blocks, std::max(over, 0.0)) / ends;
}

// The share of a stream's time that prompts take, where one takes `each` of it. On a decode worker,
// which need not take them, as much as in 9 of 10 cases: how many meet a stream is a matter of luck
// (Poisson).
double share_beside(const Worker& worker, double share, double each) {
  if (worker.role == proto::ROLE_DECODE) share += kSure * std::sqrt(share * each);
  return std::min(share, kMostShare);
}

}  // namespace

double prompt_seconds(const WorkerView& view, uint64_t tokens, uint64_t cached) {
  cached = std::min(cached, tokens > 0 ? tokens - 1 : 0);
  if (!view.known()) return kNominalToken * static_cast<double>(tokens - cached);
  return to_seconds(latency::prompt_time(view.costs, tokens - cached, cached, view.chunk_tokens));
}

double stall_seconds(const WorkerView& view, uint64_t tokens, uint64_t cached) {
  cached = std::min(cached, tokens > 0 ? tokens - 1 : 0);
  const double chunk = view.chunk_tokens > 0 ? view.chunk_tokens : 1e9;
  const double steps = std::ceil(static_cast<double>(tokens - cached) / chunk);
  return std::max(0.0, prompt_seconds(view, tokens, cached) - steps * view.costs.fixed);
}

PromptEstimate estimate_prompt(const Worker& worker, const RequestShape& shape, uint64_t cached,
                               TimePoint now) {
  const WorkerView& view = worker.view;
  PromptEstimate out{.wait = worker.prompts.ahead_of(shape.due, now),
                     .compute = prompt_seconds(view, shape.tokens, cached)};
  // Those of a prefill worker are left of its time as another.
  const bool prefill = worker.role == proto::ROLE_PREFILL;
  const uint32_t sequences = prefill ? worker.load.sequences() : view.sequences;
  if (prefill && sequences == 0) return out;
  const double riding = riding_seconds(view, sequences, view.context);
  const double chunk = view.chunk_tokens > 0 ? view.chunk_tokens : 1e9;
  const double left = static_cast<double>(shape.tokens - std::min(cached, shape.tokens - 1));
  const double stretch = out.compute > 0 ? 1 + std::ceil(left / chunk) * riding / out.compute : 1.0;
  out.wait *= stretch;
  out.compute *= stretch;
  // The step that is under way.
  if (view.known() && sequences > 0) {
    out.wait += step_seconds(view, sequences, view.context) / 2;
  }
  return out;
}

namespace {

// Beside `n` sequences of those that are there and awaited.
DecodeEstimate decode_beside(const Worker& worker, const RequestShape& shape, double n,
                             double stall, const Promises& promises, TimePoint now) {
  const WorkerView& view = worker.view;
  const double context = view.sequences > 0 ? view.context * n / view.sequences : 0;
  const double own = static_cast<double>(shape.tokens) + shape.output / 2;
  const double step = step_seconds(view, n + shape.choices, context + own * shape.choices);

  DecodeEstimate out;
  out.wait = room_wait(view, shape, n, step);
  double busy_before = 0, busy = 0, backlog = 0;
  if (worker.role != proto::ROLE_PREFILL) {  // steps are stretched by chunks of prompts
    const double share = prompt_share(view, now);
    const uint64_t tokens = std::min(shape.tokens, kLocalTokens);
    const double life = shape.output * step;
    const double each = stall_seconds(view, tokens, 0) / life;
    busy_before = share_beside(worker, share, each);
    busy = std::min(busy_before + stall / life, kMostShare);  // its own is no matter of luck
    backlog = worker.prompts.total(now) / shape.output;
  }
  const double stretched = std::max(step / (1 - busy_before), step + backlog);
  out.tpot = stretched + out.wait / std::max(1.0, shape.output - 1);
  const double old = step_seconds(view, n, context) / (1 - busy_before);
  const double next = step / (1 - busy);
  out.added = std::max(0.0, next - old) * n * shape.output;
  const auto& classes = promises.classes;
  for (size_t c = 0; c < classes.size() && c < view.streams.size(); ++c) {
    if (view.streams[c] == 0 || classes[c].best_effort || !classes[c].target.tpot) continue;
    const double target = to_seconds(*classes[c].target.tpot) * (1 - promises.tpot_margin);
    if (old <= target && next > target) out.harmed += view.streams[c];
  }
  return out;
}

}  // namespace

DecodeEstimate estimate_decode(const Worker& worker, const RequestShape& shape, Joining joining,
                               double stall, const Promises& promises, TimePoint now) {
  const WorkerView& view = worker.view;
  const double before = step_seconds(view, view.sequences, view.context);
  const double running = std::min(view.sequences, worker.load.sequences());
  const double awaited = view.sequences - running;
  const double life = shape.output * before;
  const double survive = std::exp(-joining.after / life);
  // Of those that are awaited: who has come by then and not ended. ∫ exp(-t / life) dt / all
  const double all = std::max(joining.after, joining.all);
  const double come = all > 1e-3 * life ? (1 - survive) * life / all : 1.0;
  // How many of them will have ended is a matter of luck (binomial): as many as in 9 of 10 cases.
  const double variance = running * survive * (1 - survive) + awaited * come * (1 - come);
  const double ended = running * (1 - survive) + awaited * (1 - come) - kSure * std::sqrt(variance);
  const double n = awaited + running - std::max(0.0, ended);
  return decode_beside(worker, shape, n, stall, promises, now);
}

DecodeEstimate decode_now(const Worker& worker, const RequestShape& shape, const Promises& promises,
                          TimePoint now) {
  const double running = std::min(worker.view.sequences, worker.load.sequences());
  return decode_beside(worker, shape, running, 0, promises, now);
}

double exposed_read(const WorkerView& view, uint64_t tokens, double compute, uint32_t beside) {
  const double all = view.read_token * static_cast<double>(tokens) * (1.0 + beside);
  return view.read_latency + std::max(0.0, all - compute);
}

namespace {

double recent_prompts(const WorkerView& view, TimePoint now) {
  const double since = std::max(0.0, to_seconds(now - view.prompt_share_at));
  return view.prompt_share * std::exp(-since / view.stream_life);
}

}  // namespace

// Where prompts began to come a moment ago, they are set against that moment, not against all the
// time that is looked at: what is accepted then would think that few come, and all of it be late.
double prompt_share(const WorkerView& view, TimePoint now) {
  const double past = to_seconds(now - view.prompts_since) / view.stream_life;
  return recent_prompts(view, now) / (1 - std::exp(-std::max(past, kShortestPast)));
}

void note_cached(WorkerView& view, uint32_t thought, uint32_t held) {
  constexpr double kStep = 0.1;
  const double share = std::min(1.0, static_cast<double>(held) / thought);
  view.prefix_trust += kStep * (share - view.prefix_trust);
}

void note_stream(WorkerView& view, double seconds) {
  constexpr double kStep = 0.1;
  view.stream_life += kStep * (std::clamp(seconds, kShortestLife, kLongestLife) - view.stream_life);
}

void note_prompt(WorkerView& view, double seconds, TimePoint now) {
  const double before = recent_prompts(view, now), more = seconds / view.stream_life;
  if (before < kForgotten * more) view.prompts_since = now;
  view.prompt_share = before + more;
  view.prompt_share_at = now;
}

}  // namespace baton::router
