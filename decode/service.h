#pragma once

#include <map>
#include <vector>

#include "common/base/metrics.h"
#include "common/base/token_metrics.h"
#include "common/serving/service_host.h"
#include "common/serving/step_client.h"
#include "decode/scheduler.h"
#include "kvtransfer/handoff_driver.h"

namespace baton::decode {

// Drives the decode scheduler: reservations from routers in, credits to prefill workers, steps to
// the engine, tokens out. One thread, the control thread.
class Service final : public serving::StepClient {
 public:
  // All outlive the service.
  Service(const SchedulerConfig& config, const Resources& resources,
          kvtransfer::HandoffDriver& driver, serving::ServiceHost& host, Metrics& metrics);

  // Room for a prompt that `source` will compute; answered with ReserveReply. If there is none and
  // it `may_wait`, the answer may be that it stands in line, and a second one follows.
  void reserve(engine::Request request, WorkerId source, bool may_wait, TimePoint now);
  // A prompt that was computed in this worker. If its key is in use here, it is answered with
  // Failed.
  void adopt(engine::HandOver&& prompt, TimePoint now);
  // End it without a word; unknown keys are ignored.
  void cancel(const RequestKey& key, TimePoint now);
  void cancel_choice(const RequestKey& key, uint32_t choice);
  void cancel_router(RouterId router, TimePoint now);
  void expire(TimePoint now);

  void plan(engine::StepBudget& budget, engine::StepBatch& batch, TimePoint now) override;
  void on_layer(const engine::StepBatch&, uint32_t, TimePoint) override {}
  void on_done(const engine::StepBatch& batch, TimePoint now) override;

  // The sink side of HandoffListener.
  void joined(const kvtransfer::Joined& joined, TimePoint now);
  void sink_failed(const RequestKey& key, const Error& why);
  void sink_released(std::span<const BlockId> blocks);

  Snapshot snapshot() const { return scheduler_.snapshot(); }
  // Decoding, reserved or in line, of all routers but this one.
  uint32_t sequences_of_others(RouterId router) const;
  bool idle() const { return requests_.empty(); }
  bool has(const RequestKey& key) const { return requests_.contains(key); }

 private:
  struct Request {
    uint32_t first_choice = 0;
    uint32_t choices_left = 0;
    bool want_logprobs = false;
    bool waiting = false;     // in line for room
    bool reserved = false;    // its KV is awaited
    WorkerId source;          // from this worker; none if computed here
    uint32_t num_tokens = 0;  // of the prompt
    uint64_t token_hash = 0;
    TimePoint deadline;
    std::vector<BlockId> lacking;       // that the hand-off writes
    std::vector<uint32_t> unwanted;     // choices cancelled while it was reserved, each once
    std::vector<TimePoint> last_token;  // [num_choices], for the gap between tokens
    TimePoint arrival;
    TimePoint decoding_since;  // when it had all it needed
    bool begun = false;        // one of its tokens was drawn here

    // One of its choices that nobody has cancelled yet.
    bool is_wanted(uint32_t choice) const;
  };

  static Request start(const engine::Request& request, WorkerId source, TimePoint now);
  void grant(const RequestKey& key, const Granted& granted, TimePoint now);
  void let_wait(const RequestKey& key, Duration estimate);
  void refuse(const RequestKey& key, Duration retry_after, std::string reason);
  void tell_who_waits(TimePoint now);
  void take(TimePoint now);
  void take(const Token& token, TimePoint now);
  void take(const Finished& finished, TimePoint now);
  void take(const Preempted& preempted);
  void take(const Expired& expired, TimePoint now);
  void take(const Admitted& admitted, TimePoint now);
  void tell_first_step(const RequestKey& key, const Request& request, TimePoint now);
  void choice_over(const RequestKey& key);
  void flush_tokens();
  void flush_figures();
  void fail(const RequestKey& key, const Error& why, bool retryable);

  Scheduler scheduler_;
  kvcache::BlockPool& pool_;
  kvtransfer::HandoffDriver& driver_;
  serving::ServiceHost& host_;
  std::map<RequestKey, Request> requests_;
  Events events_;                                           // scratch
  std::vector<std::pair<RouterId, proto::Frame>> figures_;  // of hand-offs, not sent yet
  TimePoint next_word_;                                     // to the sources of those that wait
  Duration step_ran_{};                                     // the last one
  std::map<RouterId, proto::Frame> outbox_;  // tokens of one step; frames keep their memory
  TokenMetrics token_metrics_;
  prometheus::Histogram& decode_seconds_;
  prometheus::Histogram& e2e_seconds_;
  prometheus::Counter& preemptions_;
};

}  // namespace baton::decode
