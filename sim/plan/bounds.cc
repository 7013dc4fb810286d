#include "sim/plan/bounds.h"

#include <algorithm>
#include <limits>

#include "common/latency/step_model.h"

namespace baton::sim {
namespace {

using latency::StepCosts;

// The least that a row costs for the products of its step, of at most `rows` rows: fixed costs are
// shared by all of them. Between the ridge and `rows` that is monotone, so that one end has it.
double least_row(const StepCosts& c, double rows) {
  const auto per_row = [&](double n) {
    return c.fixed / n + c.row + c.row_beyond * std::max(0.0, n - c.ridge_rows) / n;
  };
  return std::min(per_row(rows), per_row(std::clamp(c.ridge_rows, 1.0, rows)));
}

double prefill_work(const StepCosts& c, double row, double prompt) {
  return row * prompt + c.context_token * prompt + c.attended_pair * prompt * (prompt + 1) / 2 +
         c.output;
}

// KV that the steps of one sequence read, tokens: each the prompt and what came before.
double context_of(double prompt, double output) { return (output - 1) * (prompt + output / 2); }

// The least time of decoding on a worker, for the sequence's steps beside those of as many others
// as memory and the target allow: its own rows, and its part of what each step costs anyway.
double decode_work(const StepCosts& c, double fixed_share, double prompt, double output) {
  return (output - 1) * (fixed_share + c.row + c.output) +
         (c.context_token + c.attended_pair) * context_of(prompt, output);
}

// The least that a sequence holds on average over time, tokens, if `share` of them are served: of
// those with the shortest prompts, as long as the shortest outputs of so many take together.
double least_held(const TraceFile& trace, double share) {
  struct Held {
    double prompt, steps;
  };
  std::vector<Held> all;
  std::vector<double> steps;
  for (const auto& e : trace.entries) {
    all.push_back({static_cast<double>(e.input_tokens), std::max(1.0, e.output_tokens - 1.0)});
    steps.push_back(all.back().steps);
  }
  std::ranges::sort(steps);
  const auto kept =
      std::max<size_t>(1, static_cast<size_t>(share * static_cast<double>(all.size())));
  double time = 0;
  for (size_t i = 0; i < kept; ++i) time += steps[i];
  std::ranges::sort(all, {}, &Held::prompt);
  double left = time, sum = 0;
  for (size_t i = 0; i < all.size() && left > 0; ++i) {
    const double here = std::min(left, all[i].steps);
    sum += here * all[i].prompt;
    left -= here;
  }
  return sum / time;
}

// Sequences at once, by their mean length: what TPOT leaves time for, and memory room.
double most_sequences(const WorkerOption& w, const TraceFile& trace, uint32_t max_sequences,
                      double share, const Slo& slo) {
  const StepCosts& c = w.profile.step;
  const double tokens = least_held(trace, share);
  const double sequence = c.row + c.output + (c.context_token + c.attended_pair) * tokens;
  const double in_time = sequence > 0 ? (to_seconds(slo.tpot) - c.fixed) / sequence : max_sequences;
  const double in_memory = static_cast<double>(w.kv_tokens) / std::max(tokens, 1.0);
  return std::clamp(std::min(in_time, in_memory), 1.0, static_cast<double>(max_sequences));
}

}  // namespace

double idle_ttft(const WorkerOption& worker, uint64_t prompt, uint32_t chunk) {
  return to_seconds(latency::prompt_time(worker.profile.step, prompt, 0, chunk));
}

double idle_tpot(const WorkerOption& worker, uint64_t prompt, uint64_t output) {
  if (output < 2) return 0;
  return to_seconds(
      latency::step_time(worker.profile.step, latency::StepWork::decode(1, prompt + output / 2)));
}

double impossible_share(const TraceFile& trace, const std::vector<const WorkerOption*>& prefill,
                        const std::vector<const WorkerOption*>& decode, uint32_t chunk,
                        const Slo& slo) {
  size_t missed = 0;
  for (const TraceFile::Entry& e : trace.entries) {
    const bool first = std::ranges::any_of(prefill, [&](const WorkerOption* w) {
      return idle_ttft(*w, e.input_tokens, chunk) <= to_seconds(slo.ttft) &&
             e.input_tokens < w->kv_tokens;
    });
    const bool rest = std::ranges::any_of(decode, [&](const WorkerOption* w) {
      return idle_tpot(*w, e.input_tokens, e.output_tokens) <= to_seconds(slo.tpot) &&
             e.input_tokens + e.output_tokens <= w->kv_tokens;
    });
    missed += !first || !rest;
  }
  return static_cast<double>(missed) / static_cast<double>(trace.entries.size());
}

double most_per_second(const WorkerOption& worker, Phase phase, const TraceFile& trace,
                       uint32_t chunk, uint32_t max_sequences, double share, const Slo& slo) {
  const StepCosts& c = worker.profile.step;
  if (phase != Phase::kDecode && trace.block_tokens > 0) {
    return std::numeric_limits<double>::infinity();
  }
  const double rows = (chunk == 0 ? 1e6 : chunk) + max_sequences;
  const double row = least_row(c, rows);
  // Beside prompts, decode rows may ride in steps that are paid for by those.
  const double fixed_share =
      phase == Phase::kBoth ? 0
                            : c.fixed / most_sequences(worker, trace, max_sequences, share, slo);
  std::vector<double> work;
  work.reserve(trace.entries.size());
  for (const TraceFile::Entry& e : trace.entries) {
    double seconds = 0;
    if (phase != Phase::kDecode) seconds += prefill_work(c, row, e.input_tokens);
    if (phase != Phase::kPrefill) {
      seconds += decode_work(c, fixed_share, e.input_tokens, e.output_tokens);
    }
    work.push_back(seconds);
  }
  std::ranges::sort(work);
  double sum = 0;
  double kept = share * static_cast<double>(work.size());  // of the last of them, a part
  for (size_t i = 0; i < work.size() && kept > 0; ++i, --kept) sum += work[i] * std::min(kept, 1.0);
  return sum > 0 ? static_cast<double>(work.size()) / sum : std::numeric_limits<double>::infinity();
}

}  // namespace baton::sim
