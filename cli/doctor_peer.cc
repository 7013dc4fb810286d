#include "cli/doctor_peer.h"

#include <signal.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "kvtransfer/codec.h"

namespace baton::cli {
namespace {

constexpr Duration kPatience = seconds(10);

// A hello that no worker pairs with: of a model that none has.
std::string hello_of(const kvtransfer::Endpoint& endpoint) {
  kvtransfer::Hello hello;
  hello.worker = WorkerId(std::random_device{}() | 1u);
  hello.layout = kvcache::KvLayout::full_kv(1, 1, 16, DType::kBF16, 16);
  hello.model_key = "baton doctor";
  hello.numerics = "none";
  const uint32_t blocks = endpoint.region.bytes == 0 ? 0 : 1;  // who only reads has none
  hello.ranks = {{.head_begin = 0, .num_blocks = blocks, .endpoint = endpoint}};
  return kvtransfer::encode(hello);
}

result<kvtransfer::Endpoint> endpoint_in(const std::string& hello) {
  BATON_TRY(const kvtransfer::Hello said, kvtransfer::decode_hello(hello));
  if (said.ranks.size() != 1) return error(Errc::kDataCorrupt, "a hello of several ranks");
  return said.ranks[0].endpoint;
}

void answer(net::RpcConnection& connection, const proto::Frame& frame, doctor::ReadSide& side) {
  proto::Frame reply;
  const auto reader = endpoint_in(frame.pair_request().hello());
  const status welcome = reader ? side.welcome(*reader, connection.peer()) : status(reader.error());
  if (welcome) {
    reply.mutable_pair_reply()->set_hello(hello_of(side.endpoint()));
  } else {
    reply.mutable_pair_reply()->set_error(welcome.error().message);
  }
  (void)connection.send(reply);  // a failure closes it, and who is not answered says so
}

}  // namespace

status serve_reads(const std::string& address, const net::RpcOptions& rpc, doctor::ReadSide& side,
                   const std::function<void(uint16_t port)>& listening) {
  boost::asio::io_context io(1);
  std::set<std::shared_ptr<net::RpcConnection>> open;
  BATON_TRY(
      const auto server,
      net::listen_rpc(io, address, rpc, [&](std::shared_ptr<net::RpcConnection> guest) {
        const std::weak_ptr<net::RpcConnection> weak = guest;
        guest->set_handlers({.on_frame =
                                 [&side, weak](proto::Frame&& frame) {
                                   const auto from = weak.lock();
                                   if (from && frame.has_pair_request()) {
                                     answer(*from, frame, side);
                                   }
                                 },
                             .on_close = [&open, weak](const Error&) { open.erase(weak.lock()); }});
        open.insert(std::move(guest));
      }));
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code, int) { io.stop(); });
  listening(server->port());
  io.run();
  return {};
}

result<kvtransfer::Endpoint> meet_peer(const std::string& address, const net::RpcOptions& rpc,
                                       const kvtransfer::Endpoint& mine) {
  boost::asio::io_context io(1);
  std::optional<result<kvtransfer::Endpoint>> met;
  std::string trouble = address + " does not answer";
  proto::Frame request;
  request.mutable_pair_request()->set_hello(hello_of(mine));
  const auto client = net::make_rpc_client(
      io, address, rpc,
      {.on_connected = [&](net::RpcConnection& to) { (void)to.send(request); },
       .on_frame =
           [&](proto::Frame&& frame) {
             if (!frame.has_pair_reply()) return;
             const proto::PairReply& reply = frame.pair_reply();
             met = reply.error().empty()
                       ? endpoint_in(reply.hello())
                       : result<kvtransfer::Endpoint>(error(Errc::kUnavailable, reply.error()));
             io.stop();
           },
       .on_disconnected = [&](const Error& why) { trouble = why.message; }});
  io.run_for(kPatience);
  if (!met) return error(Errc::kUnavailable, trouble);
  return *met;
}

}  // namespace baton::cli
