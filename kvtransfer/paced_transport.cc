#include "kvtransfer/paced_transport.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "common/base/descriptor.h"
#include "common/latency/fair_links.h"

namespace baton::kvtransfer {
namespace {

using Kind = TransportEvent::Kind;
using GetId = std::pair<PeerId, uint64_t>;  // and its cookie

Error system_error(const char* what) {
  return error(Errc::kIo, std::string(what) + ": " + std::strerror(errno));
}

class PacedTransport final : public Transport {
 public:
  PacedTransport(std::unique_ptr<Transport> inner, const PacedLink& link,
                 std::function<TimePoint()> clock)
      : inner_(std::move(inner)),
        latency_(from_seconds(link.costs.latency)),
        scale_(link.scale),
        clock_(std::move(clock)),
        link_{links_.add_link(1 / link.costs.byte)} {}

  status start();

  result<std::span<std::byte>> allocate(size_t bytes, Sharing sharing) override {
    return inner_->allocate(bytes, sharing);
  }
  const Endpoint& endpoint() const override { return inner_->endpoint(); }
  result<PeerId> connect(const Endpoint& remote, std::string_view name) override {
    return inner_->connect(remote, name);
  }
  result<bool> get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                   Answer answer) override;
  void give_up(PeerId peer, uint64_t cookie) override;
  std::span<const std::byte> mapped(PeerId) const override { return {}; }
  status notify(PeerId peer, std::span<const std::byte> payload) override {
    return inner_->notify(peer, payload);
  }
  void close(PeerId peer) override;
  bool poll(std::vector<TransportEvent>& events) override;
  int event_fd() const override { return any_.get(); }
  result<bool> arm() override;
  std::string in_force(PeerId peer) const override { return inner_->in_force(peer); }
  uint64_t dropped_messages() const override { return inner_->dropped_messages(); }

 private:
  struct Get {
    double bytes = 0;      // on the link
    TimePoint flows_from;  // until then it has crossed nothing
    latency::FlowId flow;  // none: before that time, or after its end
    bool here = false;     // its bytes
    bool through = false;  // the link
  };

  TimePoint next_due() const;
  void catch_up(TimePoint now);
  void move_to(TimePoint now);
  void unpace(std::map<GetId, Get>::iterator get, const char* why);
  bool takes(TransportEvent& event);

  const std::unique_ptr<Transport> inner_;
  const Duration latency_;
  const double scale_;
  const std::function<TimePoint()> clock_;
  latency::FairLinks links_;
  const std::array<latency::LinkId, 1> link_;
  std::map<GetId, Get> gets_;
  std::map<latency::FlowId, GetId> flows_;
  std::multimap<TimePoint, GetId> begins_;  // those that have not crossed anything, by flows_from
  std::vector<TransportEvent> ready_;       // for the next poll()
  std::vector<TransportEvent> inner_events_;
  std::vector<latency::FlowId> ended_;

  const Descriptor timer_{::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
  const Descriptor any_{::epoll_create1(EPOLL_CLOEXEC)};  // the timer, or what `inner` waits for
  TimePoint timer_at_ = TimePoint::max();
};

status PacedTransport::start() {
  if (timer_.get() < 0) return system_error("timerfd_create");
  if (any_.get() < 0) return system_error("epoll_create1");
  for (const int fd : {timer_.get(), inner_->event_fd()}) {
    epoll_event readable{.events = EPOLLIN, .data = {}};
    if (::epoll_ctl(any_.get(), EPOLL_CTL_ADD, fd, &readable) != 0) return system_error("epoll");
  }
  return {};
}

result<bool> PacedTransport::get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                                 Answer answer) {
  BATON_TRY(const bool here, inner_->get(peer, ops, cookie, answer));
  double bytes = 0;
  for (const GetOp& op : ops) bytes += static_cast<double>(op.total_bytes());
  const GetId id(peer, cookie);
  const TimePoint from = clock_() + latency_;
  gets_[id] = {.bytes = bytes * scale_, .flows_from = from, .flow = {}, .here = here};
  begins_.emplace(from, id);
  return false;
}

// --- time ----------------------------------------------------------------------------------------

// When the next get begins to flow or is through.
TimePoint PacedTransport::next_due() const {
  return begins_.empty() ? links_.next_end() : std::min(begins_.begin()->first, links_.next_end());
}

// What has begun and ended by `now`, in that order.
void PacedTransport::catch_up(TimePoint now) {
  while (next_due() <= now) {
    move_to(next_due());
    if (begins_.empty() || begins_.begin()->first > links_.now()) continue;
    const GetId id = begins_.begin()->second;
    begins_.erase(begins_.begin());
    Get& get = gets_.at(id);
    get.flow = links_.start(latency::GroupId(id.first.value), link_, get.bytes);
    flows_[get.flow] = id;
  }
  move_to(now);
}

// At most to next_due().
void PacedTransport::move_to(TimePoint now) {
  if (now < links_.now()) return;
  ended_.clear();
  links_.advance(now, ended_);
  for (const latency::FlowId flow : ended_) {
    const GetId id = flows_.extract(flow).mapped();
    const auto it = gets_.find(id);
    it->second.flow = {};
    it->second.through = true;
    if (!it->second.here) continue;
    ready_.push_back({.kind = Kind::kGetDone, .peer = id.first, .cookie = id.second});
    gets_.erase(it);
  }
}

// The link is done with it. If its bytes were here, it ends, since `inner` will say nothing more.
void PacedTransport::unpace(std::map<GetId, Get>::iterator it, const char* why) {
  const auto& [id, get] = *it;
  if (get.flow != latency::FlowId{}) {
    flows_.erase(get.flow);
    links_.cancel(get.flow);
  } else if (!get.through) {
    const auto [first, last] = begins_.equal_range(get.flows_from);
    begins_.erase(std::find_if(first, last, [&](const auto& b) { return b.second == id; }));
  }
  if (get.here) {
    ready_.push_back(
        {.kind = Kind::kGetFailed, .peer = id.first, .cookie = id.second, .what = why});
  }
  gets_.erase(it);
}

void PacedTransport::give_up(PeerId peer, uint64_t cookie) {
  catch_up(clock_());
  if (const auto it = gets_.find({peer, cookie}); it != gets_.end()) unpace(it, "given up");
  inner_->give_up(peer, cookie);
}

void PacedTransport::close(PeerId peer) {
  catch_up(clock_());
  for (auto it = gets_.lower_bound({peer, 0}); it != gets_.end() && it->first.first == peer;) {
    unpace(it++, "closed");
  }
  inner_->close(peer);
}

// --- events --------------------------------------------------------------------------------------

// Whether an event of `inner` is not for others, or not yet.
bool PacedTransport::takes(TransportEvent& event) {
  if (event.kind == Kind::kGetProgress) return true;
  if (event.kind != Kind::kGetDone && event.kind != Kind::kGetFailed) return false;
  const auto it = gets_.find({event.peer, event.cookie});
  if (it == gets_.end()) return false;  // it was given up
  if (event.kind == Kind::kGetDone && !it->second.through) {
    it->second.here = true;
    return true;
  }
  unpace(it, "");
  return false;
}

bool PacedTransport::poll(std::vector<TransportEvent>& events) {
  const bool more = inner_->poll(inner_events_);
  catch_up(clock_());
  // Before what may be the end of its peer.
  std::ranges::move(ready_, std::back_inserter(events));
  ready_.clear();
  for (TransportEvent& event : inner_events_) {
    if (!takes(event)) events.push_back(std::move(event));
  }
  inner_events_.clear();
  return more;
}

result<bool> PacedTransport::arm() {
  if (!ready_.empty()) return false;
  const TimePoint due = next_due();
  const TimePoint now = clock_();
  if (due <= now) return false;
  // Set anew, a timer is no longer readable for what it was set to before.
  if (due != timer_at_) {
    timer_at_ = due;
    itimerspec at{};
    if (due != TimePoint::max()) {
      const auto in = std::chrono::nanoseconds(due - now).count();
      at.it_value = {.tv_sec = in / 1'000'000'000, .tv_nsec = in % 1'000'000'000};
    }
    if (::timerfd_settime(timer_.get(), 0, &at, nullptr) != 0) {
      timer_at_ = TimePoint::max();
      return system_error("timerfd_settime");
    }
  }
  return inner_->arm();
}

}  // namespace

result<std::unique_ptr<Transport>> make_paced_transport(std::unique_ptr<Transport> inner,
                                                        const PacedLink& link,
                                                        std::function<TimePoint()> clock) {
  assert(link.costs.byte > 0 && link.scale > 0);
  auto paced = std::make_unique<PacedTransport>(std::move(inner), link, std::move(clock));
  BATON_CHECK_OK(paced->start());
  return std::unique_ptr<Transport>(std::move(paced));
}

}  // namespace baton::kvtransfer
