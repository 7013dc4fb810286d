#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <utility>

#include "common/base/log.h"
#include "common/base/metrics.h"
#include "common/net/tcp_connection.h"

namespace baton::net {
namespace {

using boost::system::error_code;

std::string text(const tcp::endpoint& endpoint) {
  return endpoint.address().to_string() + ":" + std::to_string(endpoint.port());
}

// Holds the acceptor for as long as an accept is pending, however soon the server goes away.
class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(boost::asio::io_context& io, RpcOptions options, RpcServer::OnAccept on_accept,
           size_t max_connections)
      : acceptor_(io),
        retry_(io),
        options_(options),
        on_accept_(std::move(on_accept)),
        max_connections_(max_connections) {
    if (options_.metrics == nullptr) return;
    for (size_t i = 0; i < kRefusalNames.size(); ++i) {
      counters_[i] = &options_.metrics->counter(
          "baton_rpc_refused_total", "Connections refused before they had proven who they are.",
          {{"reason", kRefusalNames[i]}});
    }
  }

  status open(const tcp::endpoint& endpoint) {
    error_code ec;
    acceptor_.open(endpoint.protocol(), ec);
    if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor_.bind(endpoint, ec);
    if (!ec) acceptor_.listen(boost::asio::socket_base::max_listen_connections, ec);
    if (ec) return error(Errc::kIo, "cannot listen on " + text(endpoint) + ": " + ec.message());
    return {};
  }
  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void stop() {
    stopped_ = true;
    error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
  }

  void accept() {
    acceptor_.async_accept([self = shared_from_this()](error_code ec, tcp::socket socket) {
      if (self->stopped_) return;
      if (ec) return self->retry_later(ec);
      self->take(std::move(socket));
      self->accept();
    });
  }

 private:
  void take(tcp::socket socket) {
    std::erase_if(open_, [](const auto& weak) { return weak.expired(); });
    error_code ec;
    const auto remote = socket.remote_endpoint(ec);
    if (ec) return;  // gone already
    if (open_.size() >= max_connections_ && !make_room()) {
      return refused(Refusal::kTooMany,
                     error(Errc::kResourceExhausted, text(remote) + ": too many are connected, " +
                                                         std::to_string(open_.size())));
    }
    auto connection = std::make_shared<TcpConnection>(std::move(socket), text(remote), options_);
    open_.push_back(connection);
    std::weak_ptr<Acceptor> weak = weak_from_this();
    connection->on_refused([weak](Refusal refusal, const Error& why) {
      if (const auto self = weak.lock()) self->refused(refusal, why);
    });
    if (options_.secrets.empty() && !options_.tls) return on_accept_(std::move(connection));
    // Held by its own reads until it is proven, or ends.
    connection->prove(false, [weak, held = std::weak_ptr(connection)] {
      const auto self = weak.lock();
      auto guest = held.lock();
      if (self && !self->stopped_ && guest) self->on_accept_(std::move(guest));
    });
  }

  // Strangers must not keep out those who know the secret: the first that has not proven it goes.
  bool make_room() {
    const auto stranger = std::ranges::find_if(open_, [](const auto& weak) {
      const auto connection = weak.lock();
      return connection && connection->proving();
    });
    if (stranger == open_.end()) return false;
    stranger->lock()->give_way();
    open_.erase(stranger);
    return true;
  }

  // Told at most once a second: whoever knocks does not fill the log.
  void refused(Refusal refusal, const Error& why) {
    if (stopped_) return;  // the metrics may be gone
    if (auto* counter = counters_[static_cast<size_t>(refusal)]) counter->Increment();
    ++untold_;
    if (Clock::now() < next_complaint_) return;
    next_complaint_ = Clock::now() + seconds(1);
    LOG_WARN("{} connections were refused, the last: {}", std::exchange(untold_, 0), why.message);
  }

  // Out of descriptors, most likely: wait instead of spinning.
  void retry_later(error_code ec) {
    LOG_WARN("accept: {}", ec.message());
    retry_.expires_after(milliseconds(100));
    retry_.async_wait([self = shared_from_this()](error_code wait) {
      if (!wait && !self->stopped_) self->accept();
    });
  }

  tcp::acceptor acceptor_;
  boost::asio::steady_timer retry_;
  const RpcOptions options_;
  const RpcServer::OnAccept on_accept_;
  const size_t max_connections_;
  std::vector<std::weak_ptr<TcpConnection>> open_;
  std::array<prometheus::Counter*, kRefusalNames.size()> counters_{};  // by Refusal
  uint64_t untold_ = 0;
  TimePoint next_complaint_{};
  bool stopped_ = false;
};

class TcpServer final : public RpcServer {
 public:
  explicit TcpServer(std::shared_ptr<Acceptor> acceptor) : acceptor_(std::move(acceptor)) {}
  ~TcpServer() override { acceptor_->stop(); }
  uint16_t port() const override { return acceptor_->port(); }

 private:
  std::shared_ptr<Acceptor> acceptor_;
};

}  // namespace

result<std::unique_ptr<RpcServer>> listen_rpc(boost::asio::io_context& io, std::string_view address,
                                              RpcOptions options, RpcServer::OnAccept on_accept,
                                              size_t max_connections) {
  BATON_TRY(const HostPort where, split_host_port(address));
  error_code ec;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(where.host, where.port, tcp::resolver::passive, ec);
  if (ec || found.empty()) {
    return error(Errc::kInvalidArgument,
                 "cannot resolve '" + std::string(address) + "': " + ec.message());
  }
  auto acceptor = std::make_shared<Acceptor>(io, options, std::move(on_accept), max_connections);
  BATON_CHECK_OK(acceptor->open(found.begin()->endpoint()));
  acceptor->accept();
  return std::unique_ptr<RpcServer>(std::make_unique<TcpServer>(std::move(acceptor)));
}

}  // namespace baton::net
