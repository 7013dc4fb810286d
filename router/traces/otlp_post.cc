#include "router/traces/otlp_post.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <charconv>
#include <functional>
#include <string_view>
#include <utility>

#include "common/net/tls_host.h"
#include "common/proto/otlp.pb.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kMaxReplyBytes = size_t{64} << 10;
constexpr Duration kMaxRetryAfter = seconds(60);

// In seconds; a date is not read.
Duration retry_after(std::string_view text) {
  uint32_t whole = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (failed != std::errc() || end != text.data() + text.size()) return {};
  return std::min<Duration>(seconds(whole), kMaxRetryAfter);
}

PostOutcome taken(const std::string& body) {
  PostOutcome out{.kind = PostOutcome::Kind::kTaken};
  otlp::ExportTraceServiceResponse reply;
  if (!reply.ParseFromString(body) || reply.partial_success().rejected_spans() <= 0) return out;
  out.rejected_spans = static_cast<uint64_t>(reply.partial_success().rejected_spans());
  out.why = fmt::format("the collector rejected {} spans", out.rejected_spans);
  return out;
}

PostOutcome outcome_of(const http::response<http::string_body>& reply) {
  const unsigned status = reply.result_int();
  if (status >= 200 && status < 300) return taken(reply.body());
  const bool again = status == 429 || status == 502 || status == 503 || status == 504;
  const auto after = reply[http::field::retry_after];
  return {.kind = again ? PostOutcome::Kind::kTryAgain : PostOutcome::Kind::kRefused,
          .why = fmt::format("the collector answers with status {}", status),
          .retry_after = retry_after({after.data(), after.size()})};
}

http::request<http::string_body> make_request(const OtlpEndpoint& endpoint,
                                              const HttpFields& headers, const std::string& body) {
  http::request<http::string_body> request(http::verb::post, endpoint.path, 11);
  const bool is_v6 = endpoint.host.find(':') != std::string::npos;
  const std::string host = is_v6 ? "[" + endpoint.host + "]" : endpoint.host;
  request.set(http::field::host, host + ":" + endpoint.port);
  request.set(http::field::content_type, "application/x-protobuf");
  request.set(http::field::connection, "close");
  for (const auto& [name, value] : headers) request.set(name, value);
  request.body() = body;
  request.prepare_payload();
  return request;
}

using Lost = std::function<PostOutcome(const char* what, const boost::system::error_code& failed)>;

// Over a connection that stands.
template <class Stream>
asio::awaitable<PostOutcome> exchange(Stream& stream, http::request<http::string_body> request,
                                      const Lost& lost) {
  auto [unsent, written] = co_await http::async_write(stream, request, kAwait);
  if (unsent) co_return lost("cannot send to", unsent);
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxReplyBytes);
  auto [unread, read] = co_await http::async_read(stream, buffer, parser, kAwait);
  if (unread) co_return lost("no answer from", unread);
  co_return outcome_of(parser.get());
}

asio::awaitable<PostOutcome> exchange_by_tls(beast::tcp_stream stream, asio::ssl::context& tls,
                                             const std::string& host,
                                             http::request<http::string_body> request,
                                             const Lost& lost) {
  asio::ssl::stream<beast::tcp_stream> secure(std::move(stream), tls);
  net::expect_host(secure, host);
  auto [refused] = co_await secure.async_handshake(asio::ssl::stream_base::client, kAwait);
  if (refused) co_return lost("no TLS with", refused);
  co_return co_await exchange(secure, std::move(request), lost);
}

}  // namespace

asio::awaitable<PostOutcome> post_spans(const OtlpEndpoint& endpoint, const HttpFields& headers,
                                        const std::string& body, Duration timeout,
                                        const net::NameLookup& lookup, asio::ssl::context* tls) {
  const Lost lost = [&](const char* what, const boost::system::error_code& failed) {
    return PostOutcome{
        .why = fmt::format("{} {}:{}: {}", what, endpoint.host, endpoint.port, failed.message())};
  };
  const auto executor = co_await asio::this_coro::executor;
  const net::FoundName found = co_await net::look_up(lookup, endpoint.host, endpoint.port, timeout);
  if (found.failed) co_return lost("cannot find", found.failed);
  beast::tcp_stream stream(executor);
  stream.expires_after(timeout);
  auto [refused, where] = co_await stream.async_connect(found.endpoints, kAwait);
  if (refused) co_return lost("cannot connect to", refused);
  http::request<http::string_body> request = make_request(endpoint, headers, body);
  if (!endpoint.tls) co_return co_await exchange(stream, std::move(request), lost);
  co_return co_await exchange_by_tls(std::move(stream), *tls, endpoint.host, std::move(request),
                                     lost);
}

}  // namespace baton::router
