#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "common/net/tcp_connection.h"

namespace baton::net {
namespace {

using boost::system::error_code;

// The client's working part, kept alive by its pending operations; the owner's handle stops it.
class Dialer : public std::enable_shared_from_this<Dialer> {
 public:
  Dialer(boost::asio::io_context& io, std::string address, RpcOptions options,
         RpcClient::Handlers handlers, NameLookup lookup)
      : io_(io),
        socket_(io),
        timer_(io),
        address_(std::move(address)),
        options_(options),
        handlers_(std::move(handlers)),
        lookup_(std::move(lookup)),
        backoff_(options.reconnect_min),
        random_(std::random_device{}()) {}

  const std::string& address() const { return address_; }
  bool connected() const { return connection_ && connection_->open() && proven_; }

  status send(const proto::Frame& frame) {
    if (!connected()) return error(Errc::kUnavailable, address_ + ": not connected");
    return connection_->send(frame);
  }
  void settled() { backoff_ = options_.reconnect_min; }
  void reset(std::string_view why) {
    if (!connection_) return;
    connection_->forget_handlers();
    connection_->close();
    connection_.reset();
    disconnected(error(Errc::kAborted, address_ + ": " + std::string(why)));
  }
  void stop() {
    stopped_ = true;
    if (name_) name_->forget();
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
    if (connection_) {
      connection_->forget_handlers();
      connection_->close();
      connection_.reset();
    }
  }

  void dial() {
    const auto where = split_host_port(address_);
    if (!where) return disconnected(where.error());
    ++attempt_;
    timer_.expires_after(options_.connect_timeout);
    timer_.async_wait([self = shared_from_this(), attempt = attempt_](error_code ec) {
      if (ec || self->stopped_ || attempt != self->attempt_) return;
      self->give_up();
    });
    // An address is not kept waiting by names that are slow to be looked up.
    error_code is_name;
    const auto address = boost::asio::ip::make_address(where->host, is_name);
    if (!is_name) {
      return connect({tcp::endpoint(address, static_cast<uint16_t>(std::stoul(where->port)))});
    }
    if (!name_) name_.emplace(io_.get_executor(), lookup_, where->host, where->port);
    looking_ = true;
    name_->ask([weak = weak_from_this()](const FoundName& found) {
      const auto self = weak.lock();
      if (!self || self->stopped_) return;
      self->looking_ = false;
      if (found.failed) return self->attempt_failed(found.failed);
      self->connect(found.endpoints);
    });
  }

 private:
  void give_up() {
    if (std::exchange(looking_, false)) {
      name_->forget();
      return attempt_failed(boost::asio::error::timed_out);
    }
    error_code ignored;
    socket_.close(ignored);  // the connect in flight ends with an error
  }

  void connect(const std::vector<tcp::endpoint>& ends) {
    socket_ = tcp::socket(io_);
    boost::asio::async_connect(socket_, ends,
                               [self = shared_from_this()](error_code ec, const tcp::endpoint&) {
                                 if (self->stopped_) return;
                                 if (ec) return self->attempt_failed(ec);
                                 self->connected_now();
                               });
  }

  void connected_now() {
    ++attempt_;  // the time-out that still waits is of the past
    timer_.cancel();
    connection_ = std::make_shared<TcpConnection>(std::move(socket_), address_, options_);
    std::weak_ptr<Dialer> weak = weak_from_this();
    proven_ = options_.secrets.empty() && !options_.tls;
    if (!proven_) {
      connection_->prove(true, [weak] {
        const auto self = weak.lock();
        if (self && !self->stopped_) self->proven();
      });
    }
    connection_->set_handlers({
        .on_frame =
            [weak](proto::Frame&& frame) {
              const auto self = weak.lock();
              if (self && !self->stopped_ && self->handlers_.on_frame) {
                self->handlers_.on_frame(std::move(frame));
              }
            },
        .on_close =
            [weak](const Error& why) {
              const auto self = weak.lock();
              if (!self || self->stopped_) return;
              self->connection_.reset();
              self->disconnected(why);
            },
    });
    if (proven_) proven();
  }

  void proven() {
    proven_ = true;
    if (handlers_.on_connected) handlers_.on_connected(*connection_);
  }

  void attempt_failed(error_code ec) {
    ++attempt_;
    disconnected(error(Errc::kUnavailable, address_ + ": " + ec.message()));
  }

  void disconnected(const Error& why) {
    if (handlers_.on_disconnected) handlers_.on_disconnected(why);
    if (stopped_) return;
    const auto half = backoff_ / 2;
    std::uniform_int_distribution<Duration::rep> jitter(0, half.count());
    timer_.expires_after(half + Duration(jitter(random_)));
    backoff_ = std::min(backoff_ * 2, options_.reconnect_max);
    timer_.async_wait([self = shared_from_this()](error_code ec) {
      if (!ec && !self->stopped_) self->dial();
    });
  }

  boost::asio::io_context& io_;
  tcp::socket socket_;
  boost::asio::steady_timer timer_;
  const std::string address_;
  const RpcOptions options_;
  RpcClient::Handlers handlers_;
  const NameLookup lookup_;
  std::shared_ptr<TcpConnection> connection_;
  Duration backoff_;
  uint64_t attempt_ = 0;
  std::minstd_rand random_;
  std::optional<NameQuery> name_;  // none: it is an address, or was not dialled yet
  bool looking_ = false;
  bool stopped_ = false;
  bool proven_ = false;  // of the connection at hand
};

class TcpClient final : public RpcClient {
 public:
  explicit TcpClient(std::shared_ptr<Dialer> dialer) : dialer_(std::move(dialer)) {}
  ~TcpClient() override { dialer_->stop(); }
  status send(const proto::Frame& frame) override { return dialer_->send(frame); }
  bool connected() const override { return dialer_->connected(); }
  const std::string& address() const override { return dialer_->address(); }
  void settled() override { dialer_->settled(); }
  void reset(std::string_view why) override { dialer_->reset(why); }

 private:
  std::shared_ptr<Dialer> dialer_;
};

}  // namespace

std::unique_ptr<RpcClient> make_rpc_client(boost::asio::io_context& io, std::string address,
                                           RpcOptions options, RpcClient::Handlers handlers) {
  return make_rpc_client(io, std::move(address), std::move(options), std::move(handlers),
                         ask_system);
}

std::unique_ptr<RpcClient> make_rpc_client(boost::asio::io_context& io, std::string address,
                                           RpcOptions options, RpcClient::Handlers handlers,
                                           NameLookup lookup) {
  auto dialer = std::make_shared<Dialer>(io, std::move(address), std::move(options),
                                         std::move(handlers), std::move(lookup));
  dialer->dial();
  return std::make_unique<TcpClient>(std::move(dialer));
}

}  // namespace baton::net
