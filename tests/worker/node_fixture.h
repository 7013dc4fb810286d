#pragma once

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

using boost::asio::ip::tcp;

inline constexpr TokenId kMissing = -1;
inline const std::string kSecret(40, 's');

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

inline void nobody_fails() { FAIL() << "a worker cannot go on"; }

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
              uint64_t kv_bytes = 8u << 20, uint32_t preempt_every = 0, bool auto_role = false) {
    WorkerConfig config;
    config.name = "w" + std::to_string(members_.size());
    config.role = role;
    config.auto_role = auto_role;
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
    for (const auto& done : f.tokens().prefill_done()) heard_[done.request()].prefill = done;
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
  void set_role(Member& m, proto::Role role) {
    proto::Frame f;
    f.mutable_set_role()->set_role(role);
    ASSERT_TRUE(m.link->send(f));
    ASSERT_TRUE(run_until([&] { return m.load.role() == role; }));
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

  static inline fakes::TempDir* dir_ = nullptr;
  boost::asio::io_context io_;
  std::vector<std::unique_ptr<Member>> members_;
  std::map<uint64_t, Heard> heard_;
};

}  // namespace baton::worker
