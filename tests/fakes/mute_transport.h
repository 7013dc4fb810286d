#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kvtransfer/transport.h"

namespace baton::fakes {

// A transport whose messages cannot be sent once told so.
class MuteTransport final : public kvtransfer::Transport {
 public:
  MuteTransport(std::unique_ptr<Transport> real, const bool& mute)
      : real_(std::move(real)), mute_(mute) {}
  result<std::span<std::byte>> allocate(size_t bytes, kvtransfer::Sharing sharing) override {
    return real_->allocate(bytes, sharing);
  }
  const kvtransfer::Endpoint& endpoint() const override { return real_->endpoint(); }
  result<kvtransfer::PeerId> connect(const kvtransfer::Endpoint& e,
                                     std::string_view name) override {
    return real_->connect(e, name);
  }
  result<bool> get(kvtransfer::PeerId peer, std::span<const kvtransfer::GetOp> ops, uint64_t cookie,
                   kvtransfer::Answer answer) override {
    return real_->get(peer, ops, cookie, answer);
  }
  void give_up(kvtransfer::PeerId peer, uint64_t cookie) override { real_->give_up(peer, cookie); }
  std::span<const std::byte> mapped(kvtransfer::PeerId p) const override {
    return real_->mapped(p);
  }
  status notify(kvtransfer::PeerId peer, std::span<const std::byte> payload) override {
    if (mute_) return error(Errc::kResourceExhausted, "it takes nothing");
    return real_->notify(peer, payload);
  }
  void close(kvtransfer::PeerId peer) override { real_->close(peer); }
  bool poll(std::vector<kvtransfer::TransportEvent>& events) override {
    return real_->poll(events);
  }
  int event_fd() const override { return real_->event_fd(); }
  result<bool> arm() override { return real_->arm(); }
  std::string in_force(kvtransfer::PeerId peer) const override { return real_->in_force(peer); }
  uint64_t dropped_messages() const override { return real_->dropped_messages(); }

 private:
  std::unique_ptr<Transport> real_;
  const bool& mute_;
};

}  // namespace baton::fakes
