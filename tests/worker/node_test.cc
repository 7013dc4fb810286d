#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "common/net/rpc.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"
#include "worker/worker.h"

namespace baton::worker {
namespace {

using boost::asio::ip::tcp;

constexpr TokenId kMissing = -1;
const std::string kSecret(40, 's');

// What a router has heard of one request.
struct Heard {
  std::map<uint32_t, std::vector<TokenId>> tokens;  // by choice
  std::map<uint32_t, proto::Finished> finished;
  std::optional<proto::Failed> failed;
  std::optional<proto::ReserveReply> reserved;
  std::optional<proto::HandedOff> handed_off;
  std::optional<proto::PrefillDone> prefill;
  std::vector<proto::Preempted> preempted;
};

void nobody_fails() { FAIL() << "a worker cannot go on"; }

// Real workers on a tiny model, in this process, and the router's side of their connections.
class NodeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new fakes::TempDir();
    const auto model = fakes::make_tiny_model(fakes::tiny_config("llama"), 1);
    fakes::write_hf_model(dir_->path() / "tiny", model);
  }
  static void TearDownTestSuite() { delete dir_; }

  struct Member {
    std::unique_ptr<Worker> worker;
    std::unique_ptr<net::RpcClient> link;
    std::optional<proto::WorkerHello> hello;
    proto::Load load;
    std::optional<Error> lost;
  };

  Member& add(proto::Role role, const std::string& transport = "auto", uint32_t max_sequences = 16,
              uint64_t kv_bytes = 8u << 20, uint32_t preempt_every = 0) {
    WorkerConfig config;
    config.name = "w" + std::to_string(members_.size());
    config.role = role;
    config.model = (dir_->path() / "tiny").string();
    config.model_name = "tiny";
    config.transport = transport;
    config.max_sequences = max_sequences;
    config.kv_bytes = kv_bytes;
    config.chunk_tokens = 32;
    config.preempt_every = preempt_every;
    config.secrets = {kSecret};
    auto worker = Worker::start(io_, config, nobody_fails);
    if (!worker) throw std::runtime_error(worker.error().message);
    members_.push_back(std::make_unique<Member>());
    Member& m = *members_.back();
    m.worker = std::move(*worker);
    connect(m);
    EXPECT_TRUE(run_until([&] { return m.hello.has_value() && m.load.total_blocks() > 0; }));
    return m;
  }

  void connect(Member& m, const net::Secrets& secrets = {kSecret}) {
    m.link = net::make_rpc_client(
        io_, "127.0.0.1:" + std::to_string(m.worker->rpc_port()), {.secrets = secrets},
        {.on_connected =
             [](net::RpcConnection& c) {
               proto::Frame f;
               f.mutable_router_hello()->set_router(77);
               f.mutable_router_hello()->set_protocol_min(1);
               f.mutable_router_hello()->set_protocol_max(1);
               (void)c.send(f);
             },
         .on_frame = [this, &m](proto::Frame&& f) { hear(m, std::move(f)); },
         .on_disconnected = [&m](const Error& why) { m.lost = why; }});
  }

  // Tells `decode` of `prefill` and waits until they are paired.
  void pair(Member& decode, Member& prefill) {
    proto::Frame f;
    auto* peer = f.mutable_peers()->add_prefill();
    peer->set_worker(prefill.hello->worker());
    peer->set_address(prefill.hello->pair_address());
    ASSERT_TRUE(decode.link->send(f));
    ASSERT_TRUE(run_until([&] { return decode.load.paired_size() == 1; }));
  }

  void hear(Member& m, proto::Frame&& f) {
    if (f.has_worker_hello()) m.hello = f.worker_hello();
    if (f.has_load()) m.load = f.load();
    if (f.has_reserve_reply()) heard_[f.reserve_reply().request()].reserved = f.reserve_reply();
    if (f.has_handed_off()) heard_[f.handed_off().request()].handed_off = f.handed_off();
    if (f.has_prefill_done()) heard_[f.prefill_done().request()].prefill = f.prefill_done();
    if (f.has_failed()) heard_[f.failed().request()].failed = f.failed();
    if (f.has_preempted()) heard_[f.preempted().request()].preempted.push_back(f.preempted());
    if (f.has_finished()) {
      heard_[f.finished().request()].finished[f.finished().choice()] = f.finished();
    }
    for (const auto& t : f.tokens().tokens()) {
      // Prefill's and decode's come over two connections: by index, each once.
      auto& tokens = heard_[t.request()].tokens[t.choice()];
      if (tokens.size() <= t.index()) tokens.resize(t.index() + 1, kMissing);
      EXPECT_EQ(tokens[t.index()], kMissing) << "request " << t.request();
      tokens[t.index()] = t.token();
    }
  }

  template <class Done>
  bool run_until(Done done, Duration limit = seconds(20)) {
    const auto end = Clock::now() + limit;
    while (!done() && Clock::now() < end) io_.run_one_for(milliseconds(5));
    return done();
  }

  proto::RequestSpec spec(uint64_t request, uint32_t length, uint32_t max_tokens,
                          uint32_t choices = 1, float temperature = 0) {
    proto::RequestSpec s;
    s.set_request(request);
    s.set_generation(1);
    for (uint32_t i = 0; i < length; ++i) s.add_tokens(1 + (i * 7 + length) % 255);
    s.set_prompt_tokens(length);
    s.set_max_tokens(max_tokens);
    s.set_choices(choices);
    s.mutable_sampling()->set_temperature(temperature);
    s.mutable_sampling()->set_top_p(1);
    s.mutable_sampling()->set_repetition_penalty(1);
    s.mutable_sampling()->set_ignore_eos(true);
    s.mutable_sampling()->set_seed(3);
    s.set_deadline_us(20'000'000);
    return s;
  }

  void submit(Member& m, const proto::RequestSpec& spec, uint64_t sink = 0) {
    proto::Frame f;
    *f.mutable_submit()->mutable_spec() = spec;
    f.mutable_submit()->set_sink(sink);
    f.mutable_submit()->set_prompt_logprobs(-1);
    ASSERT_TRUE(m.link->send(f));
  }
  void reserve(Member& decode, const Member& prefill, const proto::RequestSpec& spec) {
    proto::Frame f;
    *f.mutable_reserve()->mutable_spec() = spec;
    f.mutable_reserve()->set_source(prefill.hello->worker());
    ASSERT_TRUE(decode.link->send(f));
    const uint64_t request = spec.request();
    ASSERT_TRUE(run_until([&] { return heard_[request].reserved || heard_[request].failed; }));
  }
  void split(Member& prefill, Member& decode, const proto::RequestSpec& spec) {
    reserve(decode, prefill, spec);
    ASSERT_TRUE(heard_[spec.request()].reserved->granted())
        << heard_[spec.request()].reserved->reason();
    submit(prefill, spec, decode.hello->worker());
  }
  void cancel(Member& m, uint64_t request) {
    proto::Frame f;
    f.mutable_cancel()->set_request(request);
    f.mutable_cancel()->set_generation(1);
    ASSERT_TRUE(m.link->send(f));
  }
  bool finished(uint64_t request, uint32_t choices = 1) {
    return heard_[request].finished.size() == choices || heard_[request].failed;
  }
  // Blocks that nobody holds any more, on every worker.
  bool nothing_held() {
    for (const auto& m : members_) {
      if (metric(*m, "baton_kv_blocks", "state=\"active\"") != 0) return false;
      if (metric(*m, "baton_kv_blocks", "state=\"quarantined\"") != 0) return false;
    }
    return true;
  }
  double metric(Member& m, const std::string& name, const std::string& label) {
    tcp::socket socket(io_);
    socket.connect({boost::asio::ip::make_address("127.0.0.1"), m.worker->metrics_port()});
    const std::string get = "GET /metrics HTTP/1.0\r\n\r\n";
    boost::asio::write(socket, boost::asio::buffer(get));
    std::string text;
    bool done = false;
    boost::asio::async_read(socket, boost::asio::dynamic_buffer(text),
                            [&](boost::system::error_code, size_t) { done = true; });
    EXPECT_TRUE(run_until([&] { return done; }));
    for (size_t at = 0; (at = text.find("\n" + name + "{", at)) != std::string::npos; ++at) {
      const std::string line = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
      if (line.find(label) != std::string::npos) return std::stod(line.substr(line.rfind(' ')));
    }
    ADD_FAILURE() << name << " is not exported";
    return -1;
  }

  static fakes::TempDir* dir_;
  boost::asio::io_context io_;
  std::vector<std::unique_ptr<Member>> members_;
  std::map<uint64_t, Heard> heard_;
};
fakes::TempDir* NodeTest::dir_ = nullptr;

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
