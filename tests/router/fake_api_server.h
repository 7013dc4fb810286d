#pragma once

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/net/tls.h"

namespace baton::router {

// An API server over TLS that does as it is told, one connection after the other. Who asks it goes
// first: it waits for the end of what it holds.
class FakeApiServer {
 public:
  struct Turn {
    // kDeaf: does not even shake hands. kHolds: says it and waits. kEnds: says it and hangs up.
    enum class Kind { kDeaf, kHolds, kEnds } kind = Kind::kHolds;
    std::string says = {};
  };
  using Kind = Turn::Kind;

  // The last turn is that of all connections after it.
  FakeApiServer(const net::TlsFiles& files, std::vector<Turn> turns)
      : turns_(std::move(turns)), acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    context_.use_certificate_chain_file(files.cert.string());
    context_.use_private_key_file(files.key.string(), boost::asio::ssl::context::pem);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeApiServer() {
    stopping_ = true;
    boost::asio::ip::tcp::socket bell(io_);
    boost::system::error_code ignored;
    bell.connect(where(), ignored);
    thread_.join();
  }

  boost::asio::ip::tcp::endpoint where() const { return acceptor_.local_endpoint(); }
  size_t begun() const { return begun_; }  // connections
  size_t ended() const { return ended_; }
  std::vector<std::string> targets() const {
    const std::lock_guard lock(mutex_);
    return targets_;
  }

 private:
  void serve() {
    for (size_t turn = 0;; ++turn) {
      boost::asio::ip::tcp::socket socket(io_);
      boost::system::error_code failed;
      acceptor_.accept(socket, failed);
      if (failed || stopping_) return;
      ++begun_;
      take(std::move(socket), turns_[std::min(turn, turns_.size() - 1)]);
      ++ended_;
    }
  }

  void take(boost::asio::ip::tcp::socket socket, const Turn& turn) {
    if (turn.kind == Kind::kDeaf) return wait_for_end(socket);
    namespace http = boost::beast::http;
    boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream(std::move(socket), context_);
    boost::system::error_code failed;
    stream.handshake(boost::asio::ssl::stream_base::server, failed);
    if (failed) return;
    boost::beast::flat_buffer buffer;
    http::request<http::empty_body> request;
    http::read(stream, buffer, request, failed);
    if (failed) return;
    {
      const std::lock_guard lock(mutex_);
      targets_.emplace_back(request.target().data(), request.target().size());
    }
    boost::asio::write(stream, boost::asio::buffer(turn.says), failed);
    if (turn.kind == Kind::kHolds) wait_for_end(stream);
  }

  template <class Stream>
  static void wait_for_end(Stream& stream) {
    boost::system::error_code ended;
    char some[256];
    while (!ended) stream.read_some(boost::asio::buffer(some), ended);
  }

  const std::vector<Turn> turns_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::ssl::context context_{boost::asio::ssl::context::tls_server};
  std::atomic<bool> stopping_{false};
  std::atomic<size_t> begun_{0}, ended_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> targets_;
  std::thread thread_;
};

}  // namespace baton::router
