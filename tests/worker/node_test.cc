#include "tests/worker/node_fixture.h"

namespace baton::worker {
namespace {

TEST_F(NodeTest, MixedWorkerAnswers) {
  Member& w = add(proto::ROLE_MIXED);
  submit(w, spec(1, 40, 12));
  ASSERT_TRUE(run_until([&] { return finished(1); }));
  EXPECT_EQ(heard_[1].tokens[0].size(), 12u);
  EXPECT_EQ(heard_[1].finished[0].reason(), proto::FINISH_LENGTH);
  EXPECT_TRUE(heard_[1].prefill);
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(NodeTest, SplitGivesTheSameTokensOverEveryTransport) {
  Member& mixed = add(proto::ROLE_MIXED);
  uint64_t next = 100;
  for (const char* transport : {"shm", "tcp"}) {
    Member& prefill = add(proto::ROLE_PREFILL, transport);
    Member& decode = add(proto::ROLE_DECODE, transport);
    pair(decode, prefill);
    for (const uint32_t length : {1u, 15u, 16u, 17u, 100u, 250u}) {
      const uint64_t a = next++, b = next++;
      submit(mixed, spec(a, length, 20, 3, 0.8f));
      split(prefill, decode, spec(b, length, 20, 3, 0.8f));
      ASSERT_TRUE(run_until([&] { return finished(a, 3) && finished(b, 3); }));
      ASSERT_FALSE(heard_[b].failed) << heard_[b].failed->message();
      EXPECT_EQ(heard_[a].tokens, heard_[b].tokens) << length << " over " << transport;
      ASSERT_TRUE(heard_[b].handed_off);
      if (length > 16) {
        EXPECT_GT(heard_[b].handed_off->bytes(), 0u);
      }
      if (std::string(transport) == "tcp") {
        EXPECT_EQ(heard_[b].handed_off->transport(), "tcp");
      }
    }
  }
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(NodeTest, ADoubledKeyIsRefusedWhereverTheFirstOneIs) {
  Member& w = add(proto::ROLE_MIXED);
  submit(w, spec(1, 40, 150));
  ASSERT_TRUE(run_until([&] { return heard_[1].tokens[0].size() > 2; }));  // decode has it
  submit(w, spec(1, 40, 150));
  ASSERT_TRUE(run_until([&] { return heard_[1].failed.has_value(); }));
  EXPECT_EQ(heard_[1].failed->message(), "the request is here already");
  EXPECT_FALSE(heard_[1].failed->retryable());
  ASSERT_TRUE(run_until([&] { return heard_[1].finished.size() == 1; }));
  EXPECT_EQ(heard_[1].tokens[0].size(), 150u);

  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  pair(decode, prefill);
  reserve(decode, prefill, spec(2, 40, 4));
  ASSERT_TRUE(heard_[2].reserved->granted());
  submit(decode, spec(2, 40, 4));
  ASSERT_TRUE(run_until([&] { return heard_[2].failed.has_value(); }));
  submit(decode, spec(3, 250, 4));
  reserve(decode, prefill, spec(3, 250, 4));
  EXPECT_FALSE(heard_[3].reserved->granted());
  EXPECT_EQ(heard_[3].reserved->reason(), "the request is here already");
  ASSERT_TRUE(run_until([&] { return heard_[3].finished.size() == 1; }));
  cancel(decode, 2);
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(NodeTest, EveryRoleMeasuresWhatItSees) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  Member& mixed = add(proto::ROLE_MIXED);
  pair(decode, prefill);
  split(prefill, decode, spec(1, 40, 6, 2));
  submit(mixed, spec(2, 40, 6, 2));
  submit(mixed, spec(3, 40, 1));
  ASSERT_TRUE(run_until([&] { return finished(1, 2) && finished(2, 2) && finished(3); }));
  const auto count = [&](Member& m, const char* name) {
    return metric(m, std::string("vllm:") + name + "_count", "");
  };
  EXPECT_EQ(count(prefill, "time_to_first_token_seconds"), 1);
  EXPECT_EQ(count(prefill, "e2e_request_latency_seconds"), 0);
  EXPECT_EQ(count(decode, "e2e_request_latency_seconds"), 1);
  EXPECT_EQ(count(decode, "inter_token_latency_seconds"), 10);
  EXPECT_EQ(count(mixed, "time_to_first_token_seconds"), 2);
  EXPECT_EQ(count(mixed, "e2e_request_latency_seconds"), 2);
}

TEST_F(NodeTest, FirstTokenMayBeTheLast) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  pair(decode, prefill);
  split(prefill, decode, spec(1, 40, 1));
  ASSERT_TRUE(run_until([&] { return finished(1); }));
  EXPECT_EQ(heard_[1].tokens[0].size(), 1u);
  EXPECT_FALSE(heard_[1].failed);
  EXPECT_TRUE(run_until([&] { return nothing_held(); }, seconds(2)));
}

TEST_F(NodeTest, CancelAtAnyMomentFreesEverything) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  pair(decode, prefill);
  for (uint64_t r = 1; r <= 40; ++r) {
    split(prefill, decode, spec(r, 200, 100));
    const auto moment = Clock::now() + microseconds(r * 400);
    run_until([&] { return Clock::now() >= moment; });
    cancel(prefill, r);
    cancel(decode, r);
  }
  EXPECT_TRUE(run_until([&] { return nothing_held(); }, seconds(2)));
  // And the pair still works.
  split(prefill, decode, spec(100, 50, 5));
  ASSERT_TRUE(run_until([&] { return finished(100); }));
  EXPECT_EQ(heard_[100].tokens[0].size(), 5u);
}

TEST_F(NodeTest, LostRouterFreesEverything) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  pair(decode, prefill);
  for (uint64_t r = 1; r <= 4; ++r) split(prefill, decode, spec(r, 200, 200));
  prefill.link.reset();
  decode.link.reset();
  EXPECT_TRUE(run_until([&] { return nothing_held(); }, seconds(2)));
}

TEST_F(NodeTest, FullDecodeWorkerSaysSo) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE, "auto", 2);
  pair(decode, prefill);
  for (uint64_t r = 1; r <= 8; ++r) reserve(decode, prefill, spec(r, 20, 50));
  EXPECT_TRUE(heard_[1].reserved->granted());
  EXPECT_FALSE(heard_[8].reserved->granted());
  EXPECT_GT(heard_[8].reserved->retry_after_us(), 0u);
  for (uint64_t r = 1; r <= 8; ++r) cancel(decode, r);
  EXPECT_TRUE(run_until([&] { return nothing_held(); }, seconds(2)));
}

TEST_F(NodeTest, UnpairedSourceIsRefused) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  reserve(decode, prefill, spec(1, 20, 5));
  EXPECT_FALSE(heard_[1].reserved->granted());
}

TEST_F(NodeTest, DeadPrefillWorkerFailsWhatItOwed) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE);
  pair(decode, prefill);
  reserve(decode, prefill, spec(1, 100, 5));
  ASSERT_TRUE(heard_[1].reserved->granted());
  prefill.link.reset();
  prefill.worker.reset();
  members_.erase(members_.begin());
  ASSERT_TRUE(run_until([&] { return heard_[1].failed.has_value(); }));
  EXPECT_TRUE(heard_[1].failed->retryable());
  EXPECT_TRUE(run_until([&] { return nothing_held(); }, seconds(2)));
}

TEST_F(NodeTest, PreemptedChoiceIsGivenBack) {
  Member& w = add(proto::ROLE_MIXED, "auto", 16, 8u << 20, 5);
  submit(w, spec(1, 40, 50));
  ASSERT_TRUE(run_until([&] { return !heard_[1].preempted.empty(); }));
  EXPECT_EQ(heard_[1].preempted[0].output_tokens(), heard_[1].tokens[0].size());
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(NodeTest, BadRequestIsRefusedByName) {
  Member& w = add(proto::ROLE_MIXED);
  auto bad = spec(1, 10, 5);
  bad.set_tokens(3, 100000);
  submit(w, bad);
  ASSERT_TRUE(run_until([&] { return heard_[1].failed.has_value(); }));
  EXPECT_FALSE(heard_[1].failed->retryable());
  EXPECT_NE(heard_[1].failed->message().find("vocabulary"), std::string::npos);
}

// It would be asked again and again otherwise.
TEST_F(NodeTest, WhatCanNeverBeReservedIsRefusedForGood) {
  Member& prefill = add(proto::ROLE_PREFILL);
  Member& decode = add(proto::ROLE_DECODE, "auto", 2, 64u << 10);  // KV for few tokens
  pair(decode, prefill);
  const uint32_t most = decode.hello->total_blocks() * decode.hello->block_tokens();
  ASSERT_LT(most, 1000u);
  reserve(decode, prefill, spec(1, most + 1, 5));
  reserve(decode, prefill, spec(2, most, 5));
  reserve(decode, prefill, spec(3, 10, 5, 3));
  for (const uint64_t r : {1, 2, 3}) {
    ASSERT_TRUE(heard_[r].failed) << r << ": " << heard_[r].reserved->reason();
    EXPECT_FALSE(heard_[r].failed->retryable()) << r;
  }
  const std::string fit = std::to_string(most);
  EXPECT_EQ(heard_[1].failed->message(),
            "request: " + std::to_string(most + 1) + " tokens; at most " + fit + " fit");
  EXPECT_NE(heard_[2].failed->message().find(fit), std::string::npos);
  EXPECT_EQ(heard_[3].failed->message(), "request: choices is not in [1, 2]");
  reserve(decode, prefill, spec(4, 10, 5));
  EXPECT_TRUE(heard_[4].reserved->granted());
  cancel(decode, 4);
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(NodeTest, DrainFinishesWhatRuns) {
  Member& w = add(proto::ROLE_MIXED);
  submit(w, spec(1, 40, 60));
  ASSERT_TRUE(run_until([&] { return !heard_[1].tokens.empty(); }));
  bool drained = false;
  w.worker->drain(seconds(10), [&] { drained = true; });
  submit(w, spec(2, 40, 5));
  ASSERT_TRUE(run_until([&] { return drained; }));
  run_until([&] { return finished(1) && finished(2); });
  EXPECT_EQ(heard_[1].tokens[0].size(), 60u);
  ASSERT_TRUE(heard_[2].failed);
  EXPECT_TRUE(heard_[2].failed->retryable());
}

TEST_F(NodeTest, PrefillServesMoreChoicesThanItWouldDecode) {
  Member& prefill = add(proto::ROLE_PREFILL, "auto", 2);
  Member& decode = add(proto::ROLE_DECODE);
  pair(decode, prefill);
  split(prefill, decode, spec(1, 20, 5, 4));
  ASSERT_TRUE(run_until([&] { return finished(1, 4); }));
  ASSERT_FALSE(heard_[1].failed) << heard_[1].failed->message();
  EXPECT_EQ(heard_[1].tokens[3].size(), 5u);
}

// Peers that are told 0.0.0.0 would pair with themselves.
TEST_F(NodeTest, AnyAddressIsNotToldToPeers) {
  const struct {
    std::string listen, advertise, told;  // told: but for the port
  } cases[] = {{"127.0.0.1:0", "", "127.0.0.1:"},
               {"0.0.0.0:0", "", ""},
               {"0.0.0.0:0", "worker.example:7000", "worker.example:7000"}};
  for (const auto& c : cases) {
    WorkerConfig config;
    config.model = (dir_->path() / "tiny").string();
    config.listen = c.listen;
    config.advertise = c.advertise;
    config.trusted_network = true;
    config.secrets = {kSecret};
    config.kv_bytes = 1u << 20;
    auto worker = Worker::start(io_, config, nobody_fails);
    ASSERT_TRUE(worker) << worker.error().message;
    Member m;
    m.worker = std::move(*worker);
    connect(m);
    ASSERT_TRUE(run_until([&] { return m.hello.has_value(); }));
    EXPECT_EQ(m.hello->pair_address().substr(0, c.told.size()), c.told);
    EXPECT_EQ(m.hello->pair_address().empty(), c.told.empty());
    m.link.reset();
  }
}

TEST_F(NodeTest, TellsAStrangerNothing) {
  Member& m = add(proto::ROLE_DECODE);
  m.hello.reset();
  m.lost.reset();
  connect(m, {});
  ASSERT_TRUE(run_until([&] { return m.lost.has_value(); }));
  EXPECT_EQ(m.lost->code, Errc::kPermissionDenied) << m.lost->message;
  EXPECT_FALSE(m.hello.has_value());
}

}  // namespace
}  // namespace baton::worker
