#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <optional>
#include <string>

#include "common/base/result.h"
#include "router/service/kubernetes_api.h"

namespace baton::router {

// One GET of the API server, over a TLS connection of its own, whose answer is read piece by piece.
// On the executor's thread, where files are read; nothing else blocks. Errors say what failed, with
// which address or file.
class KubernetesGet {
 public:
  // `api` outlives it.
  KubernetesGet(boost::asio::any_io_executor executor, const KubernetesApi& api);

  // Connects, shows the token, asks: the status of the answer. Once; within api.answer_timeout.
  boost::asio::awaitable<result<unsigned>> ask(std::string target);
  // So long from now on the rest may take; else what is left of answer_timeout.
  void expires_after(Duration d);
  // Appends the next piece of the body, of at most kPieceBytes. False: there is none left.
  boost::asio::awaitable<result<bool>> read(std::string& text);
  // What waits ends with an error, and so does what is asked later; but for a name that is being
  // looked up, which ends with the lookup.
  void close();

  static constexpr size_t kPieceBytes = size_t{16} << 10;

 private:
  using Stream = boost::asio::ssl::stream<boost::beast::tcp_stream>;
  using Parser = boost::beast::http::response_parser<boost::beast::http::buffer_body>;

  boost::asio::awaitable<status> connect();
  boost::asio::awaitable<status> shake_hands();
  boost::asio::awaitable<status> send(const std::string& target);
  boost::beast::tcp_stream& tcp() { return boost::beast::get_lowest_layer(*stream_); }
  Error lost(const char* what, const boost::system::error_code& ec) const;

  const boost::asio::any_io_executor executor_;
  const KubernetesApi& api_;
  std::optional<boost::asio::ssl::context> context_;
  std::optional<Stream> stream_;  // uses the context
  boost::beast::flat_buffer buffer_;
  Parser parser_;
  std::array<char, kPieceBytes> piece_;
  bool closed_ = false;
};

}  // namespace baton::router
