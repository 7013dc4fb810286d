#include "common/net/http_endpoint.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/rpc.h"

namespace baton::net {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kMaxConnections = 64;
constexpr size_t kMaxRequestBytes = 8 << 10;
constexpr seconds kTimeout{5};

using SharedHandlers = std::shared_ptr<const HttpHandlers>;

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, SharedHandlers handlers)
      : stream_(std::move(socket)), handlers_(std::move(handlers)) {}

  void read() {
    parser_.emplace();
    parser_->header_limit(kMaxRequestBytes);
    parser_->body_limit(0);
    stream_.expires_after(kTimeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](error_code ec, size_t) {
                       if (!ec) self->answer();
                     });
  }
  void stop() { stream_.cancel(); }

 private:
  void answer() {
    const auto& request = parser_->get();
    HttpReply reply;
    std::string_view path(request.target().data(), request.target().size());
    path = path.substr(0, path.find('?'));
    const auto handler = handlers_->find(path);
    if (handler == handlers_->end()) {
      reply = {404, "no such path\n", "text/plain"};
    } else if (request.method() != http::verb::get && request.method() != http::verb::head) {
      reply = {405, "only GET\n", "text/plain"};
    } else {
      reply = handler->second();
    }
    response_ = {};
    response_.version(request.version());
    response_.result(reply.status);
    response_.set(http::field::content_type, reply.content_type);
    if (reply.status == 405) response_.set(http::field::allow, "GET, HEAD");
    response_.keep_alive(request.keep_alive());
    response_.content_length(reply.body.size());
    if (request.method() != http::verb::head) response_.body() = std::move(reply.body);
    http::async_write(stream_, response_, [self = shared_from_this()](error_code ec, size_t) {
      if (ec) return;
      if (self->response_.keep_alive()) return self->read();
      error_code ignored;
      self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    });
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{kMaxRequestBytes};
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> response_;
  SharedHandlers handlers_;
};

class Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(boost::asio::io_context& io, HttpHandlers handlers)
      : acceptor_(io),
        retry_(io),
        handlers_(std::make_shared<const HttpHandlers>(std::move(handlers))) {}

  status open(const tcp::endpoint& endpoint, std::string_view address) {
    error_code ec;
    acceptor_.open(endpoint.protocol(), ec);
    if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor_.bind(endpoint, ec);
    if (!ec) acceptor_.listen(boost::asio::socket_base::max_listen_connections, ec);
    if (ec) {
      return error(Errc::kIo, "cannot listen on " + std::string(address) + ": " + ec.message());
    }
    return {};
  }
  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void stop() {
    error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    for (const auto& weak : sessions_) {
      if (const auto session = weak.lock()) session->stop();
    }
  }
  void accept() {
    acceptor_.async_accept([self = shared_from_this()](error_code ec, tcp::socket socket) {
      if (!self->acceptor_.is_open()) return;
      if (ec) return self->retry_later(ec);
      self->take(std::move(socket));
      self->accept();
    });
  }

 private:
  void take(tcp::socket socket) {
    std::erase_if(sessions_, [](const auto& weak) { return weak.expired(); });
    if (sessions_.size() >= kMaxConnections) return;  // closes it
    auto session = std::make_shared<Session>(std::move(socket), handlers_);
    sessions_.push_back(session);
    session->read();
  }

  // Out of descriptors, most likely: wait instead of spinning.
  void retry_later(error_code ec) {
    LOG_WARN("http accept: {}", ec.message());
    retry_.expires_after(milliseconds(100));
    retry_.async_wait([self = shared_from_this()](error_code wait) {
      if (!wait && self->acceptor_.is_open()) self->accept();
    });
  }

  tcp::acceptor acceptor_;
  boost::asio::steady_timer retry_;
  SharedHandlers handlers_;
  std::vector<std::weak_ptr<Session>> sessions_;
};

class Endpoint final : public HttpEndpoint {
 public:
  explicit Endpoint(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}
  ~Endpoint() override { listener_->stop(); }
  uint16_t port() const override { return listener_->port(); }

 private:
  std::shared_ptr<Listener> listener_;
};

}  // namespace

result<std::unique_ptr<HttpEndpoint>> serve_http(boost::asio::io_context& io,
                                                 std::string_view address, HttpHandlers handlers) {
  BATON_TRY(const HostPort where, split_host_port(address));
  error_code ec;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(where.host, where.port, tcp::resolver::passive, ec);
  if (ec || found.empty()) {
    return error(Errc::kInvalidArgument,
                 "cannot resolve '" + std::string(address) + "': " + ec.message());
  }
  auto listener = std::make_shared<Listener>(io, std::move(handlers));
  BATON_CHECK_OK(listener->open(found.begin()->endpoint(), address));
  listener->accept();
  return std::unique_ptr<HttpEndpoint>(std::make_unique<Endpoint>(std::move(listener)));
}

}  // namespace baton::net
