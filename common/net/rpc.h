#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/net/auth.h"
#include "common/net/tls.h"
#include "common/proto/worker.pb.h"

namespace boost::asio {
class io_context;
}

namespace baton {
class Metrics;
}

// Framed Protobuf messages over TCP. Everything here runs on the thread of one io_context, and all
// calls and callbacks happen there; nothing blocks.
namespace baton::net {

struct RpcOptions {
  // What both ends prove to know before a connection is handed over (auth.h); none: nothing is
  // proven, and an end that has some is not talked to.
  Secrets secrets;
  // This side's certificate: then both ends show one before anything else, and an end that speaks
  // no TLS is not talked to. None: nothing is encrypted.
  std::shared_ptr<Tls> tls;
  // Where a listener counts whom it refuses, as baton_rpc_refused_total; outlives the connections.
  Metrics* metrics = nullptr;
  size_t max_queued_bytes = 64u << 20;  // unsent; a peer that reads too slowly is cut off
  Duration ping_every = milliseconds(500);
  Duration silent_after = seconds(3);     // nothing heard for so long: the peer is dead
  Duration connect_timeout = seconds(2);  // the same again for TLS and the proof together
  Duration reconnect_min = milliseconds(50);
  Duration reconnect_max = seconds(1);
};

// One connection. Pings keep it alive and notice a peer that is silent. Shared by its own reads and
// writes and by whoever holds it.
class RpcConnection {
 public:
  struct Handlers {
    std::function<void(proto::Frame&&)> on_frame;    // pings are answered, never shown
    std::function<void(const Error& why)> on_close;  // exactly once, never from inside close()
  };
  virtual ~RpcConnection() = default;
  virtual void set_handlers(Handlers handlers) = 0;
  // Queues; kResourceExhausted (and the connection closes) over max_queued_bytes, kUnavailable
  // once closed.
  virtual status send(const proto::Frame& frame) = 0;
  // Sends what is queued (bounded by a second), then closes. on_close is called.
  virtual void close() = 0;
  virtual const std::string& peer() const = 0;  // host:port, for messages
};

// Listens; hands over each accepted connection, with no handlers set and nothing read yet.
class RpcServer {
 public:
  using OnAccept = std::function<void(std::shared_ptr<RpcConnection>)>;
  virtual ~RpcServer() = default;  // stops listening; open connections live on
  virtual uint16_t port() const = 0;
};
// `address`: "host:port", port 0 picks one. At most `max_connections` at once; then the oldest that
// has not proven itself, by certificate and secret, makes room for a new one. Who is refused before
// that is counted by reason, and a warning names the last of them, once a second at most.
result<std::unique_ptr<RpcServer>> listen_rpc(boost::asio::io_context& io, std::string_view address,
                                              RpcOptions options, RpcServer::OnAccept on_accept,
                                              size_t max_connections = 1024);

// Keeps one connection to `address`, connecting again with jittered backoff until destroyed. The
// backoff grows until settled(): a connection alone does not say that the peer takes us.
class RpcClient {
 public:
  struct Handlers {
    std::function<void(RpcConnection&)> on_connected;
    std::function<void(proto::Frame&&)> on_frame;
    std::function<void(const Error& why)> on_disconnected;  // also for each failed attempt
  };
  virtual ~RpcClient() = default;                      // closes; no callback afterwards
  virtual status send(const proto::Frame& frame) = 0;  // kUnavailable while not connected
  virtual bool connected() const = 0;
  virtual const std::string& address() const = 0;
  // The peer answered as it should: when it is lost, the first attempt comes soon.
  virtual void settled() = 0;
  // Drops the connection at hand (the peer misbehaved) and tries again after the backoff.
  virtual void reset(std::string_view why) = 0;
};
std::unique_ptr<RpcClient> make_rpc_client(boost::asio::io_context& io, std::string address,
                                           RpcOptions options, RpcClient::Handlers handlers);

// "host:port" or "[v6]:port" split; kInvalidArgument names the text.
struct HostPort {
  std::string host;
  std::string port;
};
result<HostPort> split_host_port(std::string_view address);
// The inverse: an IPv6 host gets its brackets.
std::string join_host_port(std::string_view host, uint16_t port);
// True for "localhost" and addresses of the loopback range.
bool is_loopback(std::string_view host);
// True for addresses that mean "any", such as 0.0.0.0 and ::, which nobody can be reached at.
bool is_unspecified(std::string_view host);

}  // namespace baton::net
