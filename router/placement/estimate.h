#pragma once

#include <cstdint>
#include <span>

#include "router/placement/slo.h"
#include "router/placement/worker_pool.h"

// What a request would find on a worker, and do to those that are there: predictions from the
// worker's own costs (docs/latency_model.md). Pure; seconds. Where a worker says nothing of its
// costs a nominal speed stands for them, which still orders workers by their queues.
namespace baton::router {

struct RequestShape {
  uint64_t tokens = 0;  // of the prompt, and of what was delivered on a resume
  double output = 1;    // tokens still expected, at least 1
  uint32_t choices = 1;
  TimePoint due;                         // order in the queue for prompts
  TimePoint promise = TimePoint::max();  // of the first token
};

struct PromptEstimate {
  double wait = 0;     // until it is begun
  double compute = 0;  // from then to the first token
  double ttft() const { return wait + compute; }
};
// `cached`: tokens of it that the worker holds.
PromptEstimate estimate_prompt(const Worker& worker, const RequestShape& shape, uint64_t cached,
                               TimePoint now);

// The time of the prompt's steps alone, as added to a PromptQueue.
double prompt_seconds(const WorkerView& view, uint64_t tokens, uint64_t cached);

// What a prompt adds to the time of those that decode on the same worker: they get a token in each
// of its steps, too, and the weights are read once for both.
double stall_seconds(const WorkerView& view, uint64_t tokens, uint64_t cached);

// A step in which so many sequences of so many tokens together decode.
double step_seconds(const WorkerView& view, double sequences, double context);

struct DecodeEstimate {
  double tpot = 0;
  double wait = 0;      // for room, which counts against TPOT
  double added = 0;     // what it costs those there, together, until it ends
  uint32_t harmed = 0;  // streams there that would miss their target for it, and else would not
};
// What those were promised that are there: their classes, and what is left below their TPOT for
// being wrong about it, as a share of it (Margin).
struct Promises {
  std::span<const SloClass> classes;
  double tpot_margin = 0;
};
// Seconds until it joins, and until all have that are awaited before it: they come one by one until
// then, not all at once. Zeros: all is as it is now, and they are there.
struct Joining {
  double after = 0, all = 0;
};
// What is there until it joins is taken to end at the rate at which outputs of its length do
// ("predicted, not current load"; Mooncake, section 7.4). `stall`: stall_seconds() of a prompt that
// it brings to this worker itself (mixed).
DecodeEstimate estimate_decode(const Worker& worker, const RequestShape& shape, Joining joining,
                               double stall, const Promises& promises, TimePoint now);

// The same by what decodes there now, without those that are awaited: what a load that is measured
// tells.
DecodeEstimate decode_now(const Worker& worker, const RequestShape& shape, const Promises& promises,
                          TimePoint now);

// Reads that are expected beside that of one of so many tokens which joins: each one that is
// awaited takes the time of its read, at some time until then. At most `most`: each prefill worker
// sends what it computes, one prompt after the other.
double reads_beside(const Worker& worker, uint64_t tokens, Joining joining, double most);

// How much later than the first token this worker has the KV of a prompt that another computes in
// `compute` seconds: reads go on meanwhile, beside those of `beside` other prompts, which share the
// link. 0 while it does not say what its reads take.
double exposed_read(const WorkerView& view, uint64_t tokens, double compute, double beside);

// It was thought to hold `thought` tokens of a prompt, more than 0, and held so many.
void note_cached(WorkerView& view, uint32_t thought, uint32_t held);
// A stream is placed there that will decode for so long, about.
void note_stream(WorkerView& view, double seconds);
// A prompt is placed there: to be added to prompt_share(), by its stall_seconds().
void note_prompt(WorkerView& view, double seconds, TimePoint now);
// By what share of the time prompts have made its streams longer of late.
double prompt_share(const WorkerView& view, TimePoint now);

}  // namespace baton::router
