#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/random.h"
#include "sim/router_process.h"

namespace baton::sim {

// How requests ended.
struct Tally {
  uint64_t requests = 0, answered = 0, cancelled = 0, errors = 0, lost_with_router = 0;
  uint64_t retries = 0, retargets = 0, resumes = 0, preemptions = 0, handed_off_bytes = 0;
  void add(const Tally& other);
};

// A router process of the fault tests, with its clients. Each token that a client hears is compared
// with what it must be.
class Router final : public RouterProcess {
 public:
  class Outside : public RouterProcess::Outside {
   public:
    virtual void violation(const std::string& what) = 0;
  };
  struct Request {
    std::vector<TokenId> prompt;
    uint32_t choices = 1, max_tokens = 1;
    uint64_t seed = 0;
    Duration deadline{};
    bool must_be_answered = false;  // nothing that could prevent it happens
  };

  Router(RouterId id, uint64_t first_request, Outside& outside, Timeline& timeline,
         ProcessClock clock);

  bool knows_model() const { return dispatcher().pool().capacity("m").has_value(); }
  const Tally& tally() const { return tally_; }
  size_t num_open() const { return clients_.size(); }

  // What clients do. The id of the request, if it was taken.
  std::optional<RequestId> submit(const Request& request);
  void cancel(RequestId request);
  void stop_choice(RequestId request, uint32_t choice);

  void on_frame(WorkerId from, proto::Frame&& frame) override;

  // After its deadline nothing of a request may be left.
  void check_deadlines();
  void check_nothing_is_left();
  void died() { tally_.lost_with_router += clients_.size(); }

 private:
  struct Client {
    Request request;
    TimePoint deadline;  // local
    std::vector<std::vector<TokenId>> expected, tokens;
    std::vector<bool> ended, stopped;
  };

  void ticked() override { check_deadlines(); }
  void hear(router::Output& output) override;
  void hear_token(Client& client, const router::TokenOut& token);
  void hear_choice(Client& client, const router::ChoiceEnded& ended);
  void hear_end(const router::RequestEnded& end);
  void wrong(RequestId request, const std::string& what);

  Outside& outside_;
  std::map<RequestId, Client> clients_;
  Tally tally_;
};

}  // namespace baton::sim
