#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/net/frame.h"
#include "common/net/name_lookup.h"
#include "common/net/rpc.h"
#include "common/net/wire.h"

// Private to net/: RpcConnection on a connected socket.
namespace baton::net {

// Why one that connected was not taken, in the order of refusal_names.
enum class Refusal { kNoSecret, kWrongSecret, kTls, kTimeout, kTooMany, kMalformed, kGone };
inline constexpr std::array kRefusalNames = {"no_secret", "wrong_secret", "tls", "timeout",
                                             "too_many",  "malformed",    "gone"};

class TcpConnection final : public RpcConnection,
                            public std::enable_shared_from_this<TcpConnection> {
 public:
  TcpConnection(tcp::socket socket, std::string peer, RpcOptions options);

  void set_handlers(Handlers handlers) override;  // starts reading
  status send(const proto::Frame& frame) override;
  void close() override;
  const std::string& peer() const override { return peer_; }
  // Proves the options' certificate and secret, as whoever dialled or as whoever listens, then
  // calls `proven`; until then no frame is shown, and one that does not belong there ends the
  // connection.
  void prove(bool dialled, std::function<void()> proven);
  bool open() const { return state_ == State::kOpen; }
  bool proving() const { return auth_ != nullptr; }
  // Called once if the peer is not taken; before on_close.
  void on_refused(std::function<void(Refusal, const Error& why)> told) { told_ = std::move(told); }
  // Ends one that has not proven itself, since another needs its place.
  void give_way();
  // Drops the handlers: nothing is called any more. For owners that go away.
  void forget_handlers() { handlers_.reset(); }

 private:
  enum class State { kOpen, kDraining, kClosed };

  struct Auth {
    std::optional<AuthDialler> dialler;
    std::optional<AuthListener> listener;
    std::function<void()> proven;
  };

  void shake_hands(bool dialled);
  void prove_secret(bool dialled);
  void start();
  void start_pings();
  void read_header();
  void take_header();
  void read_body(uint32_t length);
  void take_body();
  void take_frame(proto::Frame&& frame);
  status step_auth(const proto::Frame& frame);
  void end_auth();
  void refuse(const Error& why, Refusal refusal);
  void write_pending();
  void on_timer();
  void fail(Error why);
  void fail(Error why, Refusal refusal);
  Error with_peer(const Error& why) const;

  Wire wire_;
  boost::asio::steady_timer timer_;
  const std::string peer_;
  const RpcOptions options_;
  // Shared, so that a handler that drops them does not destroy itself while it runs.
  std::shared_ptr<const Handlers> handlers_;
  State state_ = State::kOpen;
  std::unique_ptr<Auth> auth_;  // until it is proven
  std::optional<Refusal> refusal_;
  std::function<void(Refusal, const Error&)> told_;
  std::optional<Error> refused_;
  bool started_ = false;
  bool greeted_ = false;  // a frame other than a ping came
  TimePoint last_heard_{};
  uint64_t ping_sequence_ = 0;
  std::array<std::byte, kFrameHeaderBytes> header_{};
  std::vector<std::byte> body_;
  std::string pending_;    // framed, waiting for the write in flight
  std::string in_flight_;  // empty: no write in flight
};

// As the one of rpc.h, where names are known by another than the system.
std::unique_ptr<RpcClient> make_rpc_client(boost::asio::io_context& io, std::string address,
                                           RpcOptions options, RpcClient::Handlers handlers,
                                           NameLookup lookup);

}  // namespace baton::net
