#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/latency/profile.h"
#include "common/proto/worker.pb.h"
#include "router/placement/prompt_queue.h"
#include "router/placement/slo_config.h"

namespace baton::router {

using SetId = StrongId<struct SetIdTag, uint32_t>;  // of a WorkerSet; 0: none

// The part of a worker that each placement looks at, in one place.
struct WorkerView {
  latency::StepCosts costs;  // as the worker has learnt; costs.fixed is 0 if it does not say
  uint32_t block_tokens = 16;
  uint32_t chunk_tokens = 0;  // of prompts in a step at most; 0: whole
  uint32_t max_sequences = 1;
  // What its reads of KV take, in seconds: each, and a token; 0 while it does not say.
  double read_latency = 0, read_token = 0;
  uint32_t sequences = 0;  // decoding there, and awaited
  double context = 0;      // tokens of these
  // Of those that this router placed there: the tokens expected of one; and of its prompt as one
  // sees it that looks at the worker at any time, which is there as long as its answer is. 0: none
  // is there.
  double output_each = 0, prompt_each = 0;
  uint32_t free_blocks = 0, total_blocks = 0;
  // Of tokens that it was thought to hold, what share it held, of late: a worker that keeps no
  // prefixes, or drops them soon, is not waited for.
  double prefix_trust = 1;
  // Of its streams' time, what prompts have added of late, that is as long as a stream lives there,
  // seconds; and when the first of them came (estimate.h: note_prompt, prompt_share).
  double prompt_share = 0;
  TimePoint prompt_share_at, prompts_since;
  double stream_life = 2;
  // Of the streams that this router has there, how many of each class.
  std::array<uint32_t, kMaxSloClasses> streams{};

  bool known() const { return costs.fixed > 0; }
};

// One worker as this router sees it. The load is soft: it may be a second old, and says nothing of
// what was placed since; hence the counts of what this router has placed there itself.
struct Worker {
  WorkerId id;
  SetId set;
  proto::WorkerHello hello;
  std::string address;  // host:port where other workers pair with it
  proto::Role role = proto::ROLE_UNSPECIFIED;
  proto::Load load;
  std::vector<uint64_t> paired;  // decode: whom it can read from, ascending
  WorkerView view;
  PromptQueue prompts;
  std::optional<proto::PromptsBegun> of_others;  // as it said last
  uint32_t placed_sequences = 0;                 // choices of legs placed here and not ended
  uint64_t placed_tokens = 0;                    // of these legs' prompts
  uint64_t placed_output = 0;                    // tokens expected of these choices
  uint64_t placed_stay = 0;                      // of each, these by its prompt's; together
  uint32_t reserving = 0;                        // of these legs, those whose grant is awaited
  uint64_t placed_prompt_tokens = 0;             // of legs whose prompt is not computed yet
  TimePoint full_until;  // it refused: not asked before, unless its load changes
  // Nor for a place in its line, or to park more KV.
  TimePoint line_full_until;

  bool auto_role() const { return hello.auto_role(); }  // SetRole may be sent to it
};

// What the workers of one model can serve, as last known.
struct ModelCapacity {
  uint32_t max_context = 0;    // tokens, prompt and output
  uint32_t max_sequences = 0;  // choices of one request
  uint32_t vocab_size = 0;
  std::string fingerprint;  // equal = equal tokens; empty while they are of several sets
};

// The workers of one model by role, those that drain left out; in the order of their ids.
struct ModelWorkers {
  std::vector<const Worker*> prefill, decode, mixed;
};

// Workers of one model whose tokens are equal: of one model_key and numerics. A request may move
// among them, and none of its parts is served by another set once the client has something of it.
struct WorkerSet {
  std::string model, model_key, numerics;
  ModelWorkers workers;
  size_t num_workers = 0;  // those that drain, too
  bool complete = false;   // has a mixed worker or a pair that does not drain
};

// The workers that said hello and fit. Pure: no clock, no thread of its own.
class WorkerPool {
 public:
  // kInvalidArgument names what does not fit: the protocol, a size, or another tokenizer than that
  // of the model's other workers. Other weights or numerics make another set.
  status add(const proto::WorkerHello& hello, std::string address);
  void remove(WorkerId id);
  // A load that shows room ends the worker's time as "full". False if the worker is unknown.
  bool update(WorkerId id, proto::Load load, TimePoint now);
  // What was placed on it has changed: its view follows.
  static void refresh_view(Worker& worker);

  Worker* find(WorkerId id);
  const Worker* find(WorkerId id) const;
  const std::map<WorkerId, Worker>& workers() const { return workers_; }
  // Of all complete sets; of all sets, if none is complete.
  const ModelWorkers& workers_of(std::string_view model) const;
  // Of this set, complete or not; of workers_of(model), if there is none.
  const ModelWorkers& workers_of(std::string_view model, SetId set) const {
    return set == SetId{} ? workers_of(model) : workers_of(set);
  }
  const ModelWorkers& workers_of(SetId set) const;
  // Null: never there, or gone for long.
  const WorkerSet* find_set(SetId set) const;
  // It has a worker that does not drain.
  bool is_there(SetId set) const;
  const std::map<SetId, WorkerSet>& sets() const { return sets_; }
  // That have workers.
  size_t num_sets(std::string_view model) const;
  // Whether one other than this has.
  bool has_other_set(std::string_view model, SetId set) const;

  // Nothing if no worker of the model was ever there.
  std::optional<ModelCapacity> capacity(std::string_view model) const;
  // A set of the model is complete.
  bool servable(std::string_view model) const;

 private:
  void take_from_the_fastest(Worker& worker) const;
  static void note_others(Worker& worker, TimePoint now);
  void refresh_capacity(const std::string& model);
  SetId set_of(const proto::WorkerHello& hello);
  bool is_complete(const WorkerSet& set) const;
  void refresh_index(const std::string& model);
  void index_complete_sets(const std::string& model);
  void forget_old_sets();

  std::map<WorkerId, Worker> workers_;
  std::map<std::string, ModelCapacity, std::less<>> capacities_;
  std::map<std::string, ModelWorkers, std::less<>> by_model_;
  std::map<SetId, WorkerSet> sets_;
  SetId last_set_;
};

// True if `decode` can read from `prefill`: it says so, and they are of one set.
bool is_paired(const Worker& decode, const Worker& prefill);
// Whether `reader` is to connect to `other`, so that KV can go between them. Of two whose roles may
// change, the one with the smaller id does: either may then read from the other.
bool should_dial(const Worker& reader, const Worker& other);

}  // namespace baton::router
