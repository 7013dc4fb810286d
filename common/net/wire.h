#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/base/result.h"
#include "common/net/tls.h"

// Private to net/: a connected socket, plain or below TLS.
namespace baton::net {

using boost::asio::ip::tcp;

class Wire {
 public:
  explicit Wire(tcp::socket socket) : socket_(std::move(socket)) {}

  // Speaks TLS from now on; `done` once, after which bytes may be read and written. An error is
  // kPermissionDenied, and says what is wrong with the peer without its name.
  void shake_hands(Tls& tls, bool dialled, std::function<void(const status&)> done);
  // Speaks plainly again, to tell a peer that knows no TLS why it is refused.
  void speak_plainly() { secure_ = false; }
  bool is_secure() const { return secure_; }
  bool peer_knows_no_tls() const { return plain_peer_; }  // once the handshake has failed
  // What no other connection has (RFC 9266, tls-exporter); empty if this one is plain.
  result<std::string> channel_binding();
  // What a read or write ended with.
  Error why(boost::system::error_code ec) const;

  // The whole buffer, as boost::asio::async_read and async_write. One of each at a time.
  template <class Handler>
  void async_read(boost::asio::mutable_buffer to, Handler handler) {
    if (secure_) {
      boost::asio::async_read(*tls_, to, std::move(handler));
    } else {
      boost::asio::async_read(socket_, to, std::move(handler));
    }
  }
  template <class Handler>
  void async_write(boost::asio::const_buffer from, Handler handler) {
    if (secure_) {
      boost::asio::async_write(*tls_, from, std::move(handler));
    } else {
      boost::asio::async_write(socket_, from, std::move(handler));
    }
  }

  tcp::socket& socket() { return socket_; }
  void close();

 private:
  using Stream = boost::asio::ssl::stream<tcp::socket&>;

  tcp::socket socket_;
  std::shared_ptr<boost::asio::ssl::context> context_;  // of this connection, whatever comes later
  std::unique_ptr<Stream> tls_;
  bool secure_ = false;      // speaks through it
  bool plain_peer_ = false;  // has shown that it does not
};

// Whether these are the first bytes of a TLS record, which no frame of a stranger begins with.
bool begins_tls(const std::byte* four_bytes);

}  // namespace baton::net
