#include "router/service/kubernetes_get.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <fstream>
#include <utility>

#include "common/net/tls_host.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kMaxTokenBytes = size_t{64} << 10;
constexpr size_t kMaxUnreadBytes = size_t{128} << 10;  // of a connection
// A server that is gone without a word is noticed within 30 s, also by a watch that hears nothing.
constexpr int kKeepIdleSeconds = 15, kKeepEverySeconds = 5, kKeepProbes = 3;

result<std::string> read_token(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string token(kMaxTokenBytes, '\0');
  file.read(token.data(), static_cast<std::streamsize>(token.size()));
  token.resize(static_cast<size_t>(file.gcount()));
  // Its line alone, and nothing that would end a header.
  token.erase(std::ranges::find_if(token, [](char c) { return c <= ' ' || c > '~'; }), token.end());
  if (!token.empty()) return token;
  return error(Errc::kIo, fmt::format("{} has no token", path.string()));
}

status set_up(asio::ssl::context& context, const std::filesystem::path& ca_file) {
  SSL_CTX* const tls = context.native_handle();
  SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
  // The authority may be one that another has signed.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls), X509_V_FLAG_PARTIAL_CHAIN);
  context.set_verify_mode(asio::ssl::verify_peer);
  boost::system::error_code failed;
  context.load_verify_file(ca_file.string(), failed);
  if (!failed) return {};
  return error(Errc::kIo,
               fmt::format("{} has no certificates: {}", ca_file.string(), failed.message()));
}

void keep_alive(asio::ip::tcp::socket& socket) {
  using Idle = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPIDLE>;
  using Every = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPINTVL>;
  using Probes = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPCNT>;
  boost::system::error_code ignored;
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  socket.set_option(Idle(kKeepIdleSeconds), ignored);
  socket.set_option(Every(kKeepEverySeconds), ignored);
  socket.set_option(Probes(kKeepProbes), ignored);
}

std::string name_of(const net::HostPort& server) {
  const bool is_v6 = server.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", is_v6 ? "[" : "", server.host, is_v6 ? "]" : "", server.port);
}

}  // namespace

KubernetesGet::KubernetesGet(asio::any_io_executor executor, const KubernetesApi& api)
    : executor_(std::move(executor)), api_(api), buffer_(kMaxUnreadBytes) {
  parser_.body_limit(boost::none);  // whoever reads has one
}

Error KubernetesGet::lost(const char* what, const boost::system::error_code& ec) const {
  return error(Errc::kUnavailable,
               fmt::format("{} the API server {}: {}", what, name_of(api_.server), ec.message()));
}

void KubernetesGet::close() {
  closed_ = true;
  if (stream_) tcp().close();
}

void KubernetesGet::expires_after(Duration d) { tcp().expires_after(d); }

asio::awaitable<result<unsigned>> KubernetesGet::ask(std::string target) {
  const status connected = co_await connect();
  if (!connected) co_return connected.error();
  const status trusted = co_await shake_hands();
  if (!trusted) co_return trusted.error();
  const status sent = co_await send(target);
  if (!sent) co_return sent.error();
  auto [unread, bytes] = co_await http::async_read_header(*stream_, buffer_, parser_, kAwait);
  if (unread) co_return lost("no answer from", unread);
  co_return parser_.get().result_int();
}

asio::awaitable<status> KubernetesGet::connect() {
  const net::FoundName found =
      co_await net::look_up(api_.lookup, api_.server.host, api_.server.port, api_.answer_timeout);
  if (closed_) co_return error(Errc::kCancelled, "closed");
  if (found.failed) co_return lost("cannot find", found.failed);
  context_.emplace(asio::ssl::context::tls_client);
  const status ready = set_up(*context_, api_.ca_file);
  if (!ready) co_return ready.error();
  stream_.emplace(executor_, *context_);
  tcp().expires_after(api_.answer_timeout);
  auto [refused, where] = co_await tcp().async_connect(found.endpoints, kAwait);
  if (refused) co_return lost("cannot connect to", refused);
  keep_alive(tcp().socket());
  co_return status();
}

asio::awaitable<status> KubernetesGet::shake_hands() {
  net::expect_host(*stream_, api_.server.host);
  auto [untrusted] = co_await stream_->async_handshake(asio::ssl::stream_base::client, kAwait);
  if (untrusted) co_return lost("no TLS with", untrusted);
  co_return status();
}

asio::awaitable<status> KubernetesGet::send(const std::string& target) {
  const auto token = read_token(api_.token_file);
  if (!token) co_return token.error();
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, name_of(api_.server));
  request.set(http::field::accept, "application/json");
  request.set(http::field::user_agent, "baton-router");
  request.set(http::field::authorization, "Bearer " + *token);
  request.set(http::field::connection, "close");
  auto [unsent, bytes] = co_await http::async_write(*stream_, request, kAwait);
  if (unsent) co_return lost("cannot send to", unsent);
  co_return status();
}

asio::awaitable<result<bool>> KubernetesGet::read(std::string& text) {
  if (parser_.is_done()) co_return false;
  auto& body = parser_.get().body();
  body.data = piece_.data();
  body.size = piece_.size();
  auto [broken, bytes] = co_await http::async_read_some(*stream_, buffer_, parser_, kAwait);
  text.append(piece_.data(), piece_.size() - body.size);
  if (broken && broken != http::error::need_buffer) co_return lost("lost", broken);
  co_return true;
}

}  // namespace baton::router
