#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/net/rpc.h"

namespace baton::fakes {

class FakeWorker;

// Where fake prefill workers find the decode worker they hand over to.
using FakeNetwork = std::map<WorkerId, FakeWorker*>;

struct FakeWorkerOptions {
  proto::Role role = proto::ROLE_MIXED;
  std::string name = "fake";
  std::string model = "toy";
  std::string numerics = "test-numerics";
  uint32_t max_context = 4096;
  uint32_t max_sequences = 64;
  uint32_t vocab_size = 320;
  uint32_t used_blocks = 0;         // beside a block of each sequence, of 1 << 20
  uint16_t port = 0;                // of the RPC endpoint; 0 picks one
  Duration step = milliseconds(1);  // a token of every sequence; zero: as fast as it goes
  // The token that a choice draws at `index`; the default gives lower-case letters by hash.
  std::function<TokenId(const proto::RequestSpec&, uint32_t choice, uint32_t index)> draw;
  std::function<bool()> ready = {};  // no step before it says so; null: at once
  Duration phase{};                  // how much later the first step comes, and with it all others
  std::function<void()> on_stepped = {};  // a step's tokens are in the routers' sockets
  FakeNetwork* network = nullptr;         // needed by prefill and decode

  // Faults.
  uint32_t refuse_reserves = 0;   // so many reservations are refused
  uint32_t fail_submits = 0;      // so many submits end in Failed, retryable
  uint32_t preempt_after = 0;     // each sequence once, after so many tokens of a leg; 0: never
  uint32_t die_after_tokens = 0;  // drops every connection once so many were sent; 0: never
};

// The default of FakeWorkerOptions::draw: a pure function of (seed, prompt, choice, index).
TokenId fake_token(const proto::RequestSpec& spec, uint32_t choice, uint32_t index);

// A worker without a model: speaks the protocol over a real socket, with tokens that a test can
// predict. Lives on the thread of the io_context; so do all calls.
class FakeWorker {
 public:
  FakeWorker(boost::asio::io_context& io, FakeWorkerOptions options);
  ~FakeWorker();

  std::string address() const;  // 127.0.0.1:port
  WorkerId id() const { return id_; }
  FakeWorkerOptions& options() { return options_; }
  // Closes all connections and stops listening, as a killed process does.
  void die();

  // What a test asks about.
  size_t active() const { return sequences_.size() + reserved_.size(); }
  uint64_t tokens_sent() const { return tokens_sent_; }
  uint32_t submits() const { return submits_; }
  uint32_t reserves() const { return reserves_; }
  uint32_t cancels() const { return cancels_; }
  const std::vector<proto::RequestSpec>& specs() const { return specs_; }  // of all submits

 private:
  struct Sequence {
    proto::RequestSpec spec;
    uint32_t choice = 0;
    uint32_t next = 0;   // index of the next token
    uint32_t first = 0;  // of this leg
    std::weak_ptr<net::RpcConnection> router;
  };
  using Key = std::pair<uint64_t, uint64_t>;  // request, generation

  void accept(std::shared_ptr<net::RpcConnection> connection);
  void on_frame(const std::shared_ptr<net::RpcConnection>& from, proto::Frame&& frame);
  void greet(const std::shared_ptr<net::RpcConnection>& to);
  void send_load();
  void on_reserve(const std::shared_ptr<net::RpcConnection>& from, const proto::Reserve& reserve);
  void on_submit(const std::shared_ptr<net::RpcConnection>& from, const proto::Submit& submit);
  void on_cancel(const proto::Cancel& cancel);
  void hand_over(const proto::Submit& submit, const std::vector<Sequence>& sequences);
  void joined(const proto::RequestSpec& spec, const std::vector<uint32_t>& choices);
  bool draw(Sequence& sequence, proto::Tokens& tokens, std::vector<proto::Frame>& after);
  void schedule();
  void step();
  void drop_router(const net::RpcConnection* router);

  boost::asio::io_context& io_;
  FakeWorkerOptions options_;
  WorkerId id_;
  boost::asio::steady_timer timer_;
  bool stepping_ = false;
  std::shared_ptr<void> alive_ = std::make_shared<char>();
  std::unique_ptr<net::RpcServer> server_;
  std::vector<std::shared_ptr<net::RpcConnection>> routers_;
  std::map<Key, std::pair<proto::RequestSpec, std::weak_ptr<net::RpcConnection>>> reserved_;
  std::vector<Sequence> sequences_;
  std::vector<uint64_t> peers_;
  uint64_t tokens_sent_ = 0;
  uint32_t submits_ = 0, reserves_ = 0, cancels_ = 0;
  std::vector<proto::RequestSpec> specs_;
};

}  // namespace baton::fakes
