#pragma once

#include <functional>
#include <map>
#include <vector>

#include "common/base/metrics.h"
#include "common/serving/service_host.h"
#include "common/serving/step_client.h"
#include "kvtransfer/handoff_driver.h"
#include "prefill/scheduler.h"

namespace baton::prefill {

// Drives the prefill scheduler: requests from routers in, steps to the engine, layers and first
// tokens out, blocks freed once the decode side has them. One thread, the control thread.
class Service final : public serving::StepClient {
 public:
  // Takes a computed prompt that is to be decoded in this worker.
  using HandOver = std::function<void(engine::HandOver&&, TimePoint now)>;

  // All but `hand_over` outlive the service.
  Service(const SchedulerConfig& config, const Resources& resources,
          kvtransfer::HandoffDriver& driver, serving::ServiceHost& host, HandOver hand_over,
          Metrics& metrics);

  // A prompt to compute for `sink`, or for this worker itself (WorkerId{}). What cannot be taken is
  // answered with Failed.
  void submit(PrefillRequest request, WorkerId sink, bool granted, TimePoint now);
  // Another decode worker, which has reserved, reads what this request has or will have; from now
  // on the request is of that generation. If it is not here any more, that is said by Failed.
  void retarget(const RequestKey& key, Generation next, WorkerId sink, TimePoint now);
  // Ends it without a word; unknown keys are ignored.
  void cancel(const RequestKey& key, TimePoint now);
  void cancel_router(RouterId router, TimePoint now);
  void expire(TimePoint now);

  void plan(engine::StepBudget& budget, engine::StepBatch& batch, TimePoint now) override;
  void on_layer(const engine::StepBatch& batch, uint32_t layer, TimePoint now) override;
  void on_done(const engine::StepBatch& batch, TimePoint now) override;

  // The source side of HandoffListener.
  void source_released(const kvtransfer::SourceReleased& released);
  void source_failed(const kvtransfer::SourceFailed& failed);
  void source_sink_lost(const RequestKey& key, const Error& why, TimePoint now);

  Snapshot snapshot() const { return scheduler_.snapshot(); }
  Duration queued_time(const latency::StepCosts& costs) const {
    return scheduler_.queued_time(costs);
  }
  // From all routers but this one.
  Taken taken_from_others(RouterId router) const;
  // Sequences that are to decode in this worker, of all routers but this one.
  uint32_t sequences_of_others(RouterId router) const;
  bool idle() const { return requests_.empty(); }
  bool has(const RequestKey& key) const { return requests_.contains(key); }

 private:
  struct Request {
    engine::Sampling sampling;
    WorkerId sink;
    uint32_t num_tokens = 0;
    uint32_t output_tokens = 0;  // drawn before this prefill (a resumed request)
    bool sample = true;
    uint32_t cached_tokens = 0;  // of the prompt, whose KV was found
    bool answered = false;       // its first tokens are out
  };

  void take(Events& events, TimePoint now);
  void take(const Started& started);
  void take(const LayersReady& ready, TimePoint now);
  void take(const PromptDone& done, TimePoint now);
  void take(const Expired& expired, TimePoint now);
  void report(const PromptDone& done);
  bool send_first_tokens(const PromptDone& done, const Request& request, bool with_report);
  void finish_here(const PromptDone& done, const Request& request, TimePoint now);
  void pass_on(const PromptDone& done, const Request& request, TimePoint now);
  void rename(const RequestKey& from, const RequestKey& to);
  void drop(const RequestKey& key);
  void fail(const RequestKey& key, const Error& why, bool retryable);

  Scheduler scheduler_;
  kvtransfer::HandoffDriver& driver_;
  serving::ServiceHost& host_;
  HandOver hand_over_;
  std::map<RequestKey, Request> requests_;
  std::map<RouterId, Taken> taken_;  // from routers that are there
  Taken taken_from_gone_;            // from those that were lost
  Events events_;                    // scratch
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& compute_seconds_;
  prometheus::Histogram& ttft_seconds_;
  prometheus::Histogram& e2e_seconds_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& queried_tokens_;
  prometheus::Counter& cached_tokens_;
};

}  // namespace baton::prefill
