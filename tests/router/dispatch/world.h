#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "router/dispatch/dispatcher.h"

namespace baton::router {

// The dispatcher among workers, clients and connections that chance drives. Messages of one
// connection keep their order; everything else may happen at any time. The world checks what a
// client may count on, and records the first thing that is wrong.
class DispatchWorld {
 public:
  struct Chances {  // per step, in thousandths
    uint32_t submit = 60, cancel = 8, stop = 5;
    uint32_t die = 3, join = 12;
    uint32_t refuse = 100, fail = 10, preempt = 10;  // where one of these can happen
    uint32_t scores = 200;                           // of submits: with the prompt's scores
  };

  explicit DispatchWorld(uint64_t seed, Chances chances);
  void run(uint32_t steps);
  // No more faults or requests: everything must come to its end.
  void settle();

  const std::string& trouble() const { return trouble_; }  // empty: none
  uint64_t ended_well() const { return ended_well_; }
  uint64_t ended_badly() const { return ended_badly_; }
  const Dispatcher& dispatcher() const { return dispatcher_; }
  uint64_t retries() const { return retries_; }
  uint64_t resumes() const { return resumes_; }

 private:
  using Key = std::pair<uint64_t, uint64_t>;  // wire id, generation
  struct Sequence {
    proto::RequestSpec spec;
    uint32_t choice = 0;
    uint32_t next = 0;
  };
  struct Prompt {
    proto::Submit submit;
    bool announced = false;
  };
  struct SimWorker {
    WorkerId id;
    proto::Role role;
    std::deque<proto::Frame> to_router, to_worker;
    std::map<Key, proto::RequestSpec> reserved;
    std::deque<Prompt> prompts;
    std::vector<Sequence> sequences;
    std::vector<uint64_t> peers;
  };
  struct Client {
    uint64_t seed = 0;
    uint32_t max_tokens = 0, choices = 0;
    bool wants_scores = false, got_scores = false;
    std::vector<std::vector<TokenId>> tokens;
    std::vector<bool> ended, stopped;
  };

  bool chance(uint32_t thousandths) { return random_() % 1000 < thousandths; }
  static TokenId draw(uint64_t seed, uint32_t choice, uint32_t index);
  static std::optional<proto::FinishReason> end_of(const proto::RequestSpec& spec, TokenId token,
                                                   uint32_t index);

  void one_step();
  void join();
  void die(size_t worker);
  void submit();
  void cancel_some();
  void stop_some();
  void carry_out();
  void hear(Output& output);
  void hear_token(const TokenOut& token);
  void hear_end(const RequestEnded& end);
  void wrong(std::string what);

  void worker_step(SimWorker& worker);
  void receive(SimWorker& worker, proto::Frame&& frame);
  void compute(SimWorker& worker);
  void join_decode(const proto::Submit& submit, const std::vector<uint32_t>& choices);
  void decode(SimWorker& worker);
  void say_token(SimWorker& worker, const proto::RequestSpec& spec, uint32_t choice, uint32_t index,
                 TokenId token);
  void say_finished(SimWorker& worker, const proto::RequestSpec& spec, uint32_t choice,
                    uint32_t tokens, proto::FinishReason reason);
  void say_load(SimWorker& worker);

  std::mt19937_64 random_;
  Chances chances_;
  TimePoint now_{seconds(1)};
  Dispatcher dispatcher_;
  Actions actions_;
  std::vector<SimWorker> workers_;
  std::map<RequestId, Client> clients_;
  std::map<RequestId, Client> gone_;  // ended or cancelled: nothing may be heard of them
  uint64_t next_worker_ = 1;
  uint64_t ended_well_ = 0, ended_badly_ = 0, retries_ = 0, resumes_ = 0;
  std::string trouble_;
};

}  // namespace baton::router
