#include "router/http/server.h"

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <random>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/net/rpc.h"
#include "router/http/connection.h"
#include "router/openai/error.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr Duration kSweepEvery = milliseconds(50);
constexpr Duration kLastWords = seconds(1);             // for the answers that drain ended
constexpr Duration kAcceptBackoff = milliseconds(100);  // out of descriptors

class Server final : public HttpServer, public std::enable_shared_from_this<Server> {
 public:
  Server(asio::io_context& io, HttpOptions options, HttpHandlers handlers)
      : io_(io), acceptor_(io), sweep_(io), backoff_(io), shared_(std::make_shared<HttpShared>()) {
    shared_->options = std::move(options);
    shared_->handlers = std::move(handlers);
    std::random_device random;
    shared_->request_prefix = fmt::format("{:08x}", random());
  }

  status listen() {
    BATON_TRY(const net::HostPort where, net::split_host_port(shared_->options.address));
    error_code failed;
    const auto found =
        tcp::resolver(io_).resolve(where.host, where.port, tcp::resolver::passive, failed);
    if (failed || found.empty()) return listen_error("resolve", failed);
    const tcp::endpoint endpoint = *found.begin();
    acceptor_.open(endpoint.protocol(), failed);
    if (failed) return listen_error("open", failed);
    acceptor_.set_option(tcp::acceptor::reuse_address(true), failed);
    acceptor_.bind(endpoint, failed);
    if (failed) return listen_error("bind", failed);
    acceptor_.listen(asio::socket_base::max_listen_connections, failed);
    if (failed) return listen_error("listen", failed);
    port_ = acceptor_.local_endpoint(failed).port();
    return {};
  }

  void run() {
    accept();
    sweep();
  }

  void stop() {
    error_code ignored;
    acceptor_.close(ignored);
    sweep_.cancel();
    backoff_.cancel();
    shared_->closed = true;
    shared_->on_fewer = nullptr;
    shared_->handlers = {};
    for (Connection* connection : all()) connection->close();
  }

  uint16_t port() const override { return port_; }
  size_t num_connections() const override { return shared_->connections.size(); }

  void drain(Duration delay, Duration within, std::function<void()> done) override {
    shared_->draining = true;
    drained_ = std::move(done);
    refuse_from_ = Clock::now() + delay;
    drain_deadline_ = refuse_from_ + within;
    if (delay <= Duration::zero()) accept_no_more();
  }

 private:
  void accept_no_more() {
    error_code ignored;
    acceptor_.close(ignored);
    backoff_.cancel();
    shared_->no_more = true;
    shared_->on_fewer = [this] { check_drained(); };
    for (Connection* connection : all()) connection->drain();
    check_drained();
  }

  status listen_error(std::string_view step, const error_code& why) const {
    return error(Errc::kIo, fmt::format("cannot {} the HTTP address {}: {}", step,
                                        shared_->options.address, why.message()));
  }

  // A copy: a connection that closes leaves the set.
  std::vector<Connection*> all() const {
    return {shared_->connections.begin(), shared_->connections.end()};
  }

  void accept() {
    acceptor_.async_accept([self = shared_from_this()](error_code failed, tcp::socket socket) {
      if (!self->acceptor_.is_open()) return;
      if (failed) return self->accept_later(failed);
      self->greet(std::move(socket));
      self->accept();
    });
  }

  void accept_later(const error_code& failed) {
    LOG_WARN("http: cannot accept: {}", failed.message());
    backoff_.expires_after(kAcceptBackoff);
    backoff_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (!cancelled && self->acceptor_.is_open()) self->accept();
    });
  }

  void greet(tcp::socket socket) {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    if (const size_t bytes = shared_->options.send_buffer_bytes) {
      socket.set_option(asio::socket_base::send_buffer_size(static_cast<int>(bytes)), ignored);
    }
    if (num_connections() < shared_->options.max_connections) {
      start_connection(std::move(socket), shared_);
      return;
    }
    const std::string body = error_body(overloaded("the server has too many connections"));
    const std::string reply = fmt::format(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        "content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{}",
        body.size(), body);
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(reply), ignored);
    socket.shutdown(tcp::socket::shutdown_send, ignored);
  }

  void sweep() {
    sweep_.expires_after(kSweepEvery);
    sweep_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (cancelled || self->shared_->closed) return;
      const TimePoint now = Clock::now();
      for (Connection* connection : self->all()) connection->check_deadline(now);
      if (self->drained_ && now >= self->refuse_from_) self->go_on_draining(now);
      self->sweep();
    });
  }

  void go_on_draining(TimePoint now) {
    if (!shared_->no_more) accept_no_more();
    if (now < drain_deadline_) return;
    const bool close = now >= drain_deadline_ + kLastWords;
    const ApiError why = from_error(error(Errc::kUnavailable, "the server is shutting down"));
    for (Connection* connection : all()) close ? connection->close() : connection->abort(why);
  }

  void check_drained() {
    if (!drained_ || num_connections() > 0) return;
    asio::post(io_, [self = shared_from_this()] {
      if (self->shared_->closed) return;
      if (const auto done = std::exchange(self->drained_, nullptr)) done();
    });
  }

  asio::io_context& io_;
  tcp::acceptor acceptor_;
  asio::steady_timer sweep_;
  asio::steady_timer backoff_;
  std::shared_ptr<HttpShared> shared_;
  uint16_t port_ = 0;
  std::function<void()> drained_;
  TimePoint refuse_from_;
  TimePoint drain_deadline_;
};

// What the owner holds: its end stops the server, whose pending handlers keep it a while longer.
class ServerHandle final : public HttpServer {
 public:
  explicit ServerHandle(std::shared_ptr<Server> server) : server_(std::move(server)) {}
  ~ServerHandle() override { server_->stop(); }
  uint16_t port() const override { return server_->port(); }
  size_t num_connections() const override { return server_->num_connections(); }
  void drain(Duration delay, Duration within, std::function<void()> done) override {
    server_->drain(delay, within, std::move(done));
  }

 private:
  std::shared_ptr<Server> server_;
};

}  // namespace

result<std::unique_ptr<HttpServer>> HttpServer::start(asio::io_context& io, HttpOptions options,
                                                      HttpHandlers handlers) {
  auto server = std::make_shared<Server>(io, std::move(options), std::move(handlers));
  BATON_CHECK_OK(server->listen());
  server->run();
  return std::unique_ptr<HttpServer>(std::make_unique<ServerHandle>(std::move(server)));
}

}  // namespace baton::router
