#include "router/service/worker_link.h"

#include <utility>

#include "common/base/log.h"
#include "common/net/protocol.h"

namespace baton::router {

WorkerLink::WorkerLink(boost::asio::io_context& io, std::string address,
                       const net::RpcOptions& options, RouterId router, Handlers handlers)
    : router_(router), handlers_(std::move(handlers)) {
  net::RpcClient::Handlers events;
  events.on_connected = [this](net::RpcConnection&) { on_connected(); };
  events.on_frame = [this](proto::Frame&& frame) { on_frame(std::move(frame)); };
  events.on_disconnected = [this](const Error& why) { on_disconnected(why); };
  client_ = net::make_rpc_client(io, std::move(address), options, std::move(events));
}

void WorkerLink::send(const proto::Frame& frame) {
  // A failure closes the connection: on_disconnected tells the rest.
  if (const status sent = client_->send(frame); !sent) {
    LOG_DEBUG("worker {}: not sent: {}", address(), sent.error().message);
  }
}

void WorkerLink::on_connected() {
  proto::Frame frame;
  proto::RouterHello& hello = *frame.mutable_router_hello();
  hello.set_protocol_min(net::kProtocolMin);
  hello.set_protocol_max(net::kProtocolMax);
  hello.set_router(router_.value);
  hello.set_dialled(address());
  send(frame);
}

void WorkerLink::on_frame(proto::Frame&& frame) {
  if (worker_) {
    handlers_.on_frame(*worker_, std::move(frame));
  } else if (frame.has_worker_hello()) {
    on_hello(frame.worker_hello());
  } else {
    refuse(error(Errc::kDataCorrupt, "it sent something else before its hello"));
  }
}

void WorkerLink::on_hello(const proto::WorkerHello& hello) {
  const std::string& pair_address = hello.pair_address().empty() ? address() : hello.pair_address();
  worker_ = WorkerId(hello.worker());  // already so: joining makes frames for it
  if (const status accepted = handlers_.on_hello(hello, pair_address); !accepted) {
    worker_.reset();
    refuse(accepted.error());
    return;
  }
  client_->settled();
  state_ = State::kConnected;
  name_ = hello.name();
  last_trouble_.clear();
  LOG_INFO("worker {} '{}' joined: {} of '{}', {} blocks of {} tokens", address(), name_,
           proto::Role_Name(hello.role()), hello.model(), hello.total_blocks(),
           hello.block_tokens());
}

void WorkerLink::refuse(const Error& why) {
  state_ = State::kRefused;
  if (why.message != last_trouble_) LOG_WARN("worker {} is refused: {}", address(), why.message);
  last_trouble_ = why.message;
  client_->reset(why.message);
}

// One that is not up yet is no news; one that will not have us, or shows no proof, is, once.
void WorkerLink::not_connected(const Error& why) {
  if (why.code == Errc::kPermissionDenied && why.message != last_trouble_) {
    LOG_WARN("no connection: {}", why.message);
    last_trouble_ = why.message;
  } else {
    LOG_DEBUG("worker {} is not there: {}", address(), why.message);
  }
}

void WorkerLink::on_disconnected(const Error& why) {
  if (state_ == State::kConnected) state_ = State::kConnecting;
  if (!worker_) return not_connected(why);
  LOG_WARN("worker {} '{}' is lost: {}", address(), name_, why.message);
  const WorkerId lost = *std::exchange(worker_, std::nullopt);
  handlers_.on_lost(lost);
}

}  // namespace baton::router
