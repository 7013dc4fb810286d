#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/cluster/traffic.h"
#include "sim/router_process.h"

namespace baton::sim {

// What became of one request, as its client saw it. Times are from the start of the run.
struct Outcome {
  enum class End : uint8_t { kOpen, kAnswered, kRefused, kFailed };
  End end = End::kOpen;
  Duration scheduled{};    // when it was to come, and came
  Duration first_token{};  // if tokens > 0
  Duration last_token{};
  Duration worst_gap{};  // between two tokens
  uint32_t tokens = 0;
  uint32_t input_tokens = 0;
};

// A router whose clients send the requests of a traffic, open loop, and note when tokens come.
class Frontend final : public RouterProcess {
 public:
  class Outside : public RouterProcess::Outside {
   public:
    virtual void request_ended(const Frontend& at, uint64_t request, const Outcome& outcome,
                               const std::string& why) = 0;
  };
  struct Config {
    RouterId id;
    RequestId first_request;
    router::DispatchLimits limits;
    router::PlacementOptions placement;
    router::SloTarget promise;   // to each request
    bool known_lengths = false;  // as ClusterRunOptions
    Duration deadline{};         // of a request
    TimePoint begun{};           // the start of the run
  };

  // `traffic` and `outcomes`, one for each of its requests, outlive it.
  Frontend(const Config& config, const Traffic& traffic, std::vector<Outcome>& outcomes,
           Outside& outside, Timeline& timeline)
      : RouterProcess(config.id, config.first_request, config.limits, config.placement, outside,
                      timeline, {}),
        config_(config),
        traffic_(traffic),
        outcomes_(outcomes),
        outside_(outside) {}

  void submit(uint64_t request);  // of the traffic
  void turn_away(uint64_t request);
  size_t num_open() const { return num_open_; }
  size_t num_awaited() const { return num_awaited_; }  // of these, those without a first token
  uint64_t tokens() const { return tokens_; }
  uint64_t retries() const { return retries_; }
  uint64_t preemptions() const { return preemptions_; }

 private:
  void hear(router::Output& output) override;
  void hear_token(const router::TokenOut& token);
  void hear_end(const router::RequestEnded& end);
  uint64_t request_of(RequestId id) const;
  Duration elapsed() const { return local_now() - config_.begun; }

  const Config config_;
  const Traffic& traffic_;
  std::vector<Outcome>& outcomes_;
  Outside& outside_;
  std::vector<uint64_t> requests_;  // [id - first_request]; ids of legs have holes
  size_t num_open_ = 0, num_awaited_ = 0;
  uint64_t tokens_ = 0, retries_ = 0, preemptions_ = 0;
};

}  // namespace baton::sim
