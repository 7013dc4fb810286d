#include "doctor/links.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace baton::doctor {
namespace {

using kvtransfer::Answer;
using kvtransfer::GetOp;
using kvtransfer::PeerId;
using kvtransfer::Transport;
using kvtransfer::TransportEvent;
using Kind = TransportEvent::Kind;

constexpr Duration kNothingFor = seconds(10);
constexpr Duration kGoodbye = seconds(1);
constexpr int kNapMs = 5;  // an order from another thread waits for so long
constexpr uint64_t kSmallBytes = 64 << 10;
constexpr int kSmallReads = 200;

// Appends what happened; where nothing did, waits a moment.
void turn(Transport& transport, std::vector<TransportEvent>& events) {
  if (transport.poll(events) || !events.empty()) return;
  const auto armed = transport.arm();
  if (!armed || !*armed) return;
  pollfd fd{.fd = transport.event_fd(), .events = POLLIN, .revents = 0};
  (void)::poll(&fd, 1, kNapMs);
}

// Ends the connections, so that the other side hears of it in good order.
void say_goodbye(Transport& transport, std::vector<PeerId> peers) {
  const TimePoint until = Clock::now() + kGoodbye;
  for (const PeerId peer : peers) transport.close(peer);
  std::vector<TransportEvent> events;
  while (!peers.empty() && Clock::now() < until) {
    events.clear();
    turn(transport, events);
    for (const TransportEvent& e : events) {
      if (e.kind == Kind::kClosed) std::erase(peers, e.peer);
    }
  }
}

// Reads all of its peer's region, again and again.
class Reader {
 public:
  Reader(Transport& transport, PeerId peer, std::span<std::byte> to)
      : transport_(transport), peer_(peer), to_(to) {}

  result<Duration> read(uint64_t bytes) {
    const GetOp op{.remote_offset = 0, .local = to_.data(), .bytes = bytes};
    const TimePoint begun = Clock::now();
    BATON_TRY(const bool here, transport_.get(peer_, {&op, 1}, ++cookie_, Answer::kInTurns));
    if (!here) BATON_CHECK_OK(await(begun));
    return Clock::now() - begun;
  }

 private:
  status await(TimePoint since) {
    for (;;) {
      events_.clear();
      turn(transport_, events_);
      for (const TransportEvent& e : events_) {
        if (e.kind == Kind::kPeerLost) return error(Errc::kUnavailable, e.what);
        if (e.cookie != cookie_) continue;
        since = Clock::now();  // a part of it, where the link is slow
        if (e.kind == Kind::kGetDone) return {};
        if (e.kind == Kind::kGetFailed) return error(Errc::kUnavailable, e.what);
      }
      if (Clock::now() - since > kNothingFor) {
        return error(Errc::kDeadlineExceeded, "nothing came of a read of it for 10 s");
      }
    }
  }

  Transport& transport_;
  const PeerId peer_;
  const std::span<std::byte> to_;
  uint64_t cookie_ = 0;
  std::vector<TransportEvent> events_;
};

result<LinkFound> measure(Transport& transport, PeerId peer, std::span<std::byte> memory,
                          const kvtransfer::Endpoint& owner, Duration time) {
  Reader reader(transport, peer, memory);
  const uint64_t large = std::min<uint64_t>(memory.size(), owner.region.bytes);
  BATON_CHECK_OK(reader.read(large));  // memory is touched and connections are made

  LinkFound found{.transport = transport.in_force(peer), .software = owner.software};
  Duration took{};
  double read = 0;
  while (took < time) {
    BATON_TRY(const Duration one, reader.read(large));
    took += one;
    read += static_cast<double>(large);
  }
  found.bytes_per_second = read / to_seconds(took);
  std::vector<Duration> small;
  for (int i = 0; i < kSmallReads; ++i) {
    BATON_TRY(const Duration one, reader.read(kSmallBytes));
    small.push_back(one);
  }
  std::ranges::nth_element(small, small.begin() + kSmallReads / 2);
  found.latency = small[kSmallReads / 2];
  return found;
}

}  // namespace

ReadSide::ReadSide(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)), endpoint_(transport_->endpoint()) {}

result<std::unique_ptr<ReadSide>> ReadSide::start(const kvtransfer::UcxOptions& options,
                                                  size_t bytes) {
  BATON_TRY(auto transport, kvtransfer::make_ucx_transport(options));
  BATON_CHECK_OK(transport->allocate(bytes, kvtransfer::Sharing::kNone));
  std::unique_ptr<ReadSide> side(new ReadSide(std::move(transport)));
  side->thread_ = std::thread([s = side.get()] { s->answer(); });
  return side;
}

ReadSide::~ReadSide() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

status ReadSide::welcome(const kvtransfer::Endpoint& reader, const std::string& name) {
  std::unique_lock lock(mutex_);
  newcomer_ = &reader;
  newcomer_name_ = name;
  welcomed_.reset();
  asked_.wait(lock, [&] { return welcomed_.has_value(); });
  return *welcomed_;
}

status ReadSide::connect(const kvtransfer::Endpoint& reader, std::vector<PeerId>& peers) {
  if (peers.size() >= kMostReaders) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} others read already; try again", peers.size()));
  }
  BATON_TRY(const PeerId peer, transport_->connect(reader, newcomer_name_));
  peers.push_back(peer);
  return {};
}

void ReadSide::answer() {
  std::vector<TransportEvent> events;
  std::vector<PeerId> peers;
  while (!stop_) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto* newcomer = std::exchange(newcomer_, nullptr)) {
        welcomed_ = connect(*newcomer, peers);
        asked_.notify_all();
      }
    }
    events.clear();
    turn(*transport_, events);
    for (const TransportEvent& e : events) {
      if (e.kind == Kind::kPeerLost) transport_->close(e.peer);
      if (e.kind == Kind::kClosed) std::erase(peers, e.peer);
    }
  }
  say_goodbye(*transport_, peers);
}

result<LinkFound> measure_reads(const kvtransfer::UcxOptions& options, size_t bytes, Duration time,
                                const Meet& meet) {
  BATON_TRY(const auto transport, kvtransfer::make_ucx_transport(options));
  BATON_TRY(const auto memory, transport->allocate(bytes, kvtransfer::Sharing::kNone));
  BATON_TRY(const kvtransfer::Endpoint owner, meet(transport->endpoint()));
  if (owner.region.bytes < kSmallBytes) {
    return error(Errc::kDataCorrupt, "what it lets us read is too small");
  }
  BATON_TRY(const PeerId peer, transport->connect(owner, "the other side"));
  const auto found = measure(*transport, peer, memory, owner, time);
  say_goodbye(*transport, {peer});
  return found;
}

result<LinkFound> measure_here(const kvtransfer::UcxOptions& options, size_t bytes, Duration time) {
  BATON_TRY(const auto owner, ReadSide::start(options, bytes));
  kvtransfer::UcxOptions reads = options;
  reads.is_read = false;
  return measure_reads(reads, bytes, time,
                       [&](const kvtransfer::Endpoint& mine) -> result<kvtransfer::Endpoint> {
                         BATON_CHECK_OK(owner->welcome(mine, "the reader"));
                         return owner->endpoint();
                       });
}

}  // namespace baton::doctor
