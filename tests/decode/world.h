#pragma once

// Both schedulers over fake engines, as one worker (mixed) or as two between which KV is copied,
// driven by chance. Every token that comes out is compared with what is right.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "decode/scheduler.h"
#include "prefill/scheduler.h"
#include "tests/fakes/fake_engine.h"

namespace baton::decode {

struct WorldConfig {
  uint32_t seed = 0;
  bool split = false;
  uint32_t depth = 2;         // steps in flight
  uint32_t pool_blocks = 30;  // of each worker
  uint32_t chunk_tokens = 8;
  uint32_t preempt_every_n_steps = 0;
  bool disturb = true;  // cancel, expire, preempt by chance
};

class World {
 public:
  explicit World(const WorldConfig& config);

  void submit();   // one more request, by chance
  void disturb();  // something happens to some request
  void step();     // time passes, one step of each worker
  void drain();    // no more disturbance; until all requests have ended
  void check() const;
  void expect_nothing_held() const;

  // Of each request and choice, in order of submission.
  const std::map<std::pair<uint64_t, uint32_t>, std::vector<TokenId>>& outputs() const {
    return outputs_;
  }
  size_t preempted() const { return preempted_; }
  size_t completed() const { return completed_; }

 private:
  static constexpr uint32_t kBlock = 4, kLayers = 2, kSlots = 8, kContext = 60;

  struct Worker {
    Worker(const WorldConfig& config);
    kvcache::BlockPool pool;
    kvcache::PrefixHasher hasher;
    kvcache::DigestTable digests;
    engine::SlotAllocator slots;
    fakes::FakeEngine fake;
    prefill::Scheduler prefill;
    Scheduler decode;
    std::deque<engine::StepBatch> in_flight;
    std::vector<engine::StepBatch> idle;  // for their memory
  };
  // A live attempt at a request.
  struct Attempt {
    engine::Request request;
    std::set<uint32_t> choices;  // those that have not ended or moved on
    enum { kPrefilling, kComputed, kDecoding } state = kPrefilling;
    std::optional<Granted> granted;  // split: the sink's
    bool waiting = false;            // split: in the sink's line
    std::vector<BlockId> source;     // split: the source's table, as reported
    std::vector<TokenId> first_tokens;
  };
  struct Choice {
    std::vector<TokenId> expected;
    bool ended = false;  // finished, cancelled or expired
  };

  Worker& source() { return *workers_.front(); }
  Worker& sink() { return *workers_.back(); }
  uint32_t below(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }

  void launch(engine::Request request);
  void try_reserve(Attempt& attempt);
  void try_transfers();
  void transfer(Attempt& attempt);
  void give_up_reservation(Attempt& attempt);
  void release_quarantine(const Granted& granted);
  void abandon(const RequestKey& key);
  void drop_choice(const RequestKey& key, uint32_t choice, bool ended);
  void drop_all(const RequestKey& key);
  void step_worker(Worker& worker);
  void finish_oldest(Worker& worker);

  void take(prefill::Events& events);
  void take(Events& events);
  void on(const prefill::Started& started);
  void on(const prefill::ChunkDone&) {}
  void on(const prefill::LayersReady& ready);
  void on(const prefill::PromptDone& done);
  void on(const prefill::Expired& expired);
  void on(const Token& token);
  void on(const Finished& finished);
  void on(const Preempted& preempted);
  void on(const Expired& expired);
  void on(const Admitted& admitted);
  void deliver(const RequestKey& key, uint32_t choice, TokenId token);
  Choice& choice_of(const RequestKey& key, uint32_t choice) {
    return choices_.at({key.request.value, choice});
  }

  WorldConfig config_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<Worker>> workers_;  // one, or prefill and decode
  std::map<RequestKey, Attempt> attempts_;
  std::map<std::pair<uint64_t, uint32_t>, Choice> choices_;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<TokenId>> outputs_;
  prefill::Events prefill_events_;
  Events events_;
  std::vector<engine::Request> relaunch_;  // preempted, to be computed again
  TimePoint now_{seconds(1000)};
  uint64_t next_id_ = 1;
  uint64_t next_generation_ = 1;
  size_t preempted_ = 0, completed_ = 0, admitted_ = 0;
};

}  // namespace baton::decode
