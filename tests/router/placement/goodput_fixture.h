#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <optional>

#include "common/net/protocol.h"
#include "router/placement/placement.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {

// A token of a prompt takes 1 ms, a decode step 10 ms and 1 ms for each sequence.
inline latency::StepCosts costs(double speed = 1) {
  return {.fixed = 0.01 / speed, .row = 0.001 / speed, .row_beyond = 0, .ridge_rows = 1e6};
}

class GoodputTest : public testing::Test {
 protected:
  GoodputTest() { make(Policy::kGoodput); }

  void make(Policy policy, uint32_t most_local_tokens = 0) {
    placer_.emplace(PlacementOptions{
        .policy = policy,
        .most_local_tokens = most_local_tokens,
        .classes = {{.name = "chat", .target = {milliseconds(500), milliseconds(20)}},
                    {.name = "batch", .target = {}, .best_effort = true}}});
  }
  void add(WorkerId id, proto::Role role, double speed = 1) {
    proto::WorkerHello hello = make_hello(id, role);
    hello.set_protocol_max(net::kProtocolMax);
    hello.set_max_sequences(64);
    hello.set_total_blocks(10'000);
    hello.set_max_context(100'000);
    hello.set_chunk_tokens(1 << 20);
    ASSERT_TRUE(pool_.add(hello, "host:1"));
    load(id, 0, 0, speed);
  }
  void add_pairs() {
    add(kPrefill, proto::ROLE_PREFILL);
    add(kPrefill2, proto::ROLE_PREFILL);
    add(kDecode, proto::ROLE_DECODE);
    add(kDecode2, proto::ROLE_DECODE);
  }
  void load(WorkerId id, double queued, uint32_t sequences, double speed = 1,
            uint32_t free_blocks = 10'000) {
    proto::Load load;
    load.set_free_blocks(free_blocks);
    load.set_total_blocks(10'000);
    load.set_queued_us(static_cast<uint64_t>(queued * 1e6));
    load.set_running(sequences);
    load.set_sequences(sequences);
    load.set_context_tokens(uint64_t{sequences} * 100);
    const latency::StepCosts c = costs(speed);
    load.mutable_step_costs()->set_fixed(c.fixed);
    load.mutable_step_costs()->set_row(c.row);
    load.mutable_step_costs()->set_ridge_rows(c.ridge_rows);
    for (const WorkerId p : {kPrefill, kPrefill2}) load.add_paired(p.value);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  void say_reads(WorkerId id, double latency, double token) {
    proto::Load load = pool_.find(id)->load;
    load.set_link_latency(latency);
    load.set_link_token(token);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  PlacementQuery query(uint64_t tokens = 100, uint32_t slo_class = 0) const {
    const SloClass& c = placer_->options().classes[slo_class];
    PlacementQuery q{.model = "m",
                     .shape = {.tokens = tokens, .output = 50, .due = now_},
                     .target = c.target,
                     .received = now_,
                     .best_effort = c.best_effort,
                     .now = now_};
    if (c.target.ttft) q.shape.due = q.shape.promise = now_ + *c.target.ttft;
    return q;
  }
  Decision place(const PlacementQuery& q) { return placer_->place(pool_, q).value(); }
  std::optional<Refusal> judge(const PlacementQuery& q) {
    return placer_->judge(pool_, q, place(q));
  }
  void place_prompt(WorkerId id, uint64_t request, double seconds, Duration promise) {
    pool_.find(id)->prompts.add(RequestId(request), now_ + promise, now_ + promise, seconds);
  }

  // Sequences that are awaited there, of so many tokens' prompts, and the tokens expected of each.
  struct Answers {
    uint32_t sequences;
    uint64_t prompt, output;
  };
  void place_answers(WorkerId id, std::initializer_list<Answers> all) {
    Worker& worker = *pool_.find(id);
    worker.placed_sequences = 0;
    worker.placed_tokens = worker.placed_output = worker.placed_stay = 0;
    for (const auto& [sequences, prompt, output] : all) {
      worker.placed_sequences += sequences;
      worker.placed_tokens += sequences * prompt;
      worker.placed_output += sequences * output;
      worker.placed_stay += sequences * prompt * output;
    }
    WorkerPool::refresh_view(worker);
  }

  WorkerPool pool_;
  std::optional<Placer> placer_;
  TimePoint now_{seconds(100)};
};

}  // namespace baton::router
