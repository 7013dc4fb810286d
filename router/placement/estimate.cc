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
constexpr double kShortest = 1e-6;      // of a stream's life, seconds
constexpr int kRounds = 4;              // towards a fixed point

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

// What decodes together.
struct Batch {
  double sequences = 0, context = 0;  // context: tokens of them all
};

// Without those that are awaited.
Batch batch_now(const Worker& worker) {
  const auto context = static_cast<double>(worker.load.context_tokens());
  return {static_cast<double>(std::min(worker.view.sequences, worker.load.sequences())),
          std::min(worker.view.context, context)};
}

DecodeEstimate decode_beside(const Worker& worker, const RequestShape& shape, const Batch& beside,
                             double stall, const Promises& promises, TimePoint now) {
  const WorkerView& view = worker.view;
  const auto [n, context] = beside;
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

// Of those that are there and awaited, what will decode when one joins: as many as in 9 of 10
// cases, since how many will have ended is a matter of luck (binomial). How long one stays goes by
// the steps that so many take, of which so many are the outcome: a fixed point.
Batch batch_then(const Worker& worker, double output, Joining joining) {
  const WorkerView& view = worker.view;
  const Batch now = batch_now(worker);
  const double running = now.sequences, awaited = view.sequences - running;
  const double all = std::max(joining.after, joining.all);
  // Of others' sequences only the class is known, of those that this router placed more.
  const double own =
      view.sequences > 0 ? std::min(1.0, 1.0 * worker.placed_sequences / view.sequences) : 0;
  const double each = view.sequences > 0 ? view.context / view.sequences : 0;
  const double held = each + own * (view.prompt_each > 0 ? view.prompt_each - each : 0);
  if (view.output_each > 0) output += own * (view.output_each - output);
  Batch then = now;
  for (int i = 0; i < kRounds; ++i) {
    const double life =
        std::max(output * step_seconds(view, then.sequences, then.context), kShortest);
    const double survive = std::exp(-joining.after / life);
    // Of those that are awaited: who has come by then and not ended. ∫ exp(-t / life) dt / all
    const double come = all > 1e-3 * life ? (1 - survive) * life / all : 1.0;
    const double variance = running * survive * (1 - survive) + awaited * come * (1 - come);
    const double mean = running * survive + awaited * come;
    if (mean <= 0) return {};
    // Where many have ended by then, those are there that stay long.
    const double prompt = held + come * (each - held);
    const double context = now.context * survive + awaited * come * prompt;
    then.sequences = std::min(running + awaited, mean + kSure * std::sqrt(variance));
    then.context = context * then.sequences / mean;
  }
  return then;
}

}  // namespace

DecodeEstimate estimate_decode(const Worker& worker, const RequestShape& shape, Joining joining,
                               double stall, const Promises& promises, TimePoint now) {
  return decode_beside(worker, shape, batch_then(worker, shape.output, joining), stall, promises,
                       now);
}

DecodeEstimate decode_now(const Worker& worker, const RequestShape& shape, const Promises& promises,
                          TimePoint now) {
  return decode_beside(worker, shape, batch_now(worker), 0, promises, now);
}

double reads_beside(const Worker& worker, uint64_t tokens, Joining joining, double most) {
  const WorkerView& view = worker.view;
  const double awaited = view.sequences - std::min(view.sequences, worker.load.sequences());
  const double each = worker.placed_sequences > 0
                          ? static_cast<double>(worker.placed_tokens) / worker.placed_sequences
                          : static_cast<double>(tokens);
  const double read = view.read_token * each;
  const double all = std::max(joining.after, joining.all);
  return std::min(awaited * (all > read ? read / all : 1.0), most);
}

double exposed_read(const WorkerView& view, uint64_t tokens, double compute, double beside) {
  const double all = view.read_token * static_cast<double>(tokens) * (1 + beside);
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
