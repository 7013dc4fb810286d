#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/engine/entry_pool.h"
#include "common/engine/slots.h"
#include "common/engine/step.h"
#include "common/kvcache/block_pool.h"
#include "common/kvcache/prefix.h"
#include "decode/types.h"
#include "decode/waiting_line.h"

namespace baton::decode {

// What the schedulers of one worker share. Outlives them.
struct Resources {
  kvcache::BlockPool& pool;
  kvcache::PrefixHasher& hasher;
  engine::SlotAllocator& slots;
};

// Decides which sequences get their next token in the next step: a pure state machine, one thread,
// no clock. Each call appends what became of requests to `events`; nothing allocates per token
// (but for the growth of `events`).
//
//   reserve -> reserved -> join -> running -> finished | preempted
//   reserve -> waiting -> reserved ...
//   adopt  ----------------------> running               at any point: cancel, expire
//
// A request has one sequence for each choice; they share the prompt's full blocks. Sequences are
// served by priority, then arrival; when blocks run out, the last of that order gives way, so that
// the first always goes on. Steps may overlap: plan() may be called before the results of earlier
// steps are in; then a sequence's next row takes the token that the engine drew last, and a row
// planned past a stop token is ignored. What a step in flight may still write is held until it is
// done; steps are done in the order of their planning.
class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, const Resources& resources);

  // Blocks and slots for a prompt that another worker computes. kInvalidArgument: it can never be
  // served here, with the reason, or its key is in use.
  result<Reservation> reserve(DecodeRequest request);
  // Lets in who stands in line, as far as there is room. Cheap if nothing has become free.
  void admit_waiting(Events& events);
  // The KV of a reserved request is here, checked; `first_tokens` [num_choices] are drawn and
  // delivered. Choices that end with them finish at once. kNotFound, kInvalidArgument; then nothing
  // is changed.
  status join(const RequestKey& key, std::span<const TokenId> first_tokens, Events& events);
  // As join, for a prompt that was computed here. kInvalidArgument: its key is in use here; then
  // its blocks and slots are given back.
  status adopt(engine::HandOver over, Events& events);

  // Appends one row for each sequence that can go on, and takes from the budget.
  void plan(engine::StepBudget& budget, engine::StepBatch& batch, Events& events);
  void on_step_done(const engine::StepBatch& batch, TimePoint now, Events& events);

  // The end of all choices; no event. Blocks of a reservation that were to be written go into
  // quarantine: the caller gives them back (BlockPool::release_quarantine) once nothing writes to
  // them. kNotFound: no such request.
  status cancel(const RequestKey& key);
  // The same for one choice; the others go on.
  status cancel_choice(const RequestKey& key, uint32_t choice);
  // Ends what is past its deadline.
  void expire(TimePoint now, Events& events);
  // Preempts all sequences of a request. kNotFound: it does not run here.
  status preempt(const RequestKey& key, Events& events);

  Snapshot snapshot() const;

 private:
  struct RequestEntry {
    engine::Request info;
    uint64_t serial = 0;              // order of reserve() and adopt()
    uint32_t limit = 0;               // tokens in a sequence at most, prompt and output
    bool running = false;             // else reserved
    std::vector<uint32_t> sequences;  // running: those not ended
    // Reserved:
    std::vector<kvcache::PrefixHash> hashes;  // of the full blocks of the tokens
    std::vector<BlockId> table;
    uint32_t first_lacking_block = 0;
    std::vector<SlotId> slots;              // [num_choices]
    std::vector<uint32_t> dropped_choices;  // that nobody wants any more
  };
  struct Sequence {
    uint32_t request = 0;  // meaningless once ended
    uint32_t choice = 0;
    SlotId slot;
    bool opened = false;  // its sampler
    bool ended = false;   // holds its blocks for the steps in flight only
    std::vector<BlockId> table;
    std::optional<BlockId> copy_from;  // shared partial block: copied with the first row, held
                                       // until that is done
    std::vector<TokenId> output;       // resumed ones included
    std::vector<TokenId> unhashed;     // computed tokens of the last, partial block
    kvcache::PrefixHash chain;         // of the block before it
    uint32_t planned = 0;              // positions computed or in a step in flight
    uint32_t in_flight = 0;            // steps
  };

  // admission.cc
  result<uint32_t> check(const DecodeRequest& request) const;
  uint32_t limit_of(const engine::Request& request) const;
  uint32_t match_prefix(const DecodeRequest& request, RequestEntry& entry);
  uint32_t free_sequences() const;
  uint32_t growth_margin(uint32_t more_sequences) const;
  bool has_room(uint32_t lacking_blocks, uint32_t choices) const;
  Granted admit(engine::Request request, RequestEntry entry, uint32_t lacking_blocks);
  Duration retry_after(uint64_t lacking_blocks, uint32_t choices) const;

  // sequences.cc
  void fork(uint32_t request, engine::HandOver over, bool opened, Events& events);
  Sequence make_sequence(uint32_t request, const kvcache::PrefixHash& chain) const;
  bool goes_before(uint32_t a, uint32_t b) const;
  void start(uint32_t index);
  void append_token(uint32_t index, TokenId token, Events& events);
  void preempt_sequence(uint32_t index, Events& events);
  void end_sequence(uint32_t index);
  void remove_sequence(uint32_t index);
  void end_request(uint32_t index);
  void end_reservation(uint32_t index);

  // scheduler.cc
  bool all_planned(const Sequence& s) const;
  void preempt_for_test(Events& events);
  bool take_block(size_t rank, engine::StepBatch& batch, Events& events);
  bool room_is_coming() const;
  void append_row(uint32_t index, engine::StepBatch& batch);
  void open(Sequence& s, engine::StepBatch& batch);
  void row_done(uint32_t index, uint32_t position, const ops::SampleResult& result, Events& events);
  void note_computed(Sequence& s, uint32_t position);
  void measure_step(TimePoint now);

  SchedulerConfig config_;
  Resources shared_;
  engine::EntryPool<RequestEntry> requests_;
  engine::EntryPool<Sequence> sequences_;
  std::map<RequestKey, uint32_t> by_key_;
  std::vector<uint32_t> running_;  // sequences not ended, the first to be served first
  std::vector<BlockId> arrived_;   // received for requests that joined since the last plan
  WaitingLine line_;
  struct Free {
    uint32_t blocks = 0, sequences = 0;
  };
  std::optional<Free> too_little_;  // what was free when the first in line last looked
  uint64_t next_serial_ = 0;
  uint64_t plans_ = 0;
  uint32_t awaited_sequences_ = 0;  // choices of reserved requests
  uint32_t ending_ = 0;             // sequences that ended with steps in flight
  uint64_t preempted_ = 0;
  std::optional<TimePoint> last_done_;
  Duration step_time_ = milliseconds(20);  // running mean
};

}  // namespace baton::decode
