#include "tests/router/bare_relay.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "tests/router/stream_clients.h"

namespace baton::router {
namespace {

constexpr std::string_view kHead =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

std::string event_of(size_t bytes) {
  const std::string_view before = "c0\r\ndata: ", after = "\n\n\r\n";
  return std::string(before) + std::string(bytes - before.size() - after.size(), 'x') +
         std::string(after);
}

void send_all(int fd, std::string_view bytes) {
  if (::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
    throw std::runtime_error("a client took too little");
  }
}

}  // namespace

BareRelay::BareRelay(Options options, const Processors& processors, SendTimes& times)
    : options_(std::move(options)), times_(times), event_(event_of(options_.event_bytes)) {
  listening_ = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  auto* const raw = reinterpret_cast<sockaddr*>(&at);
  if (::bind(listening_, raw, size) != 0 || ::listen(listening_, 4096) != 0 ||
      ::getsockname(listening_, raw, &size) != 0 || ::pipe(steps_.data()) != 0) {
    throw std::runtime_error("cannot listen");
  }
  port_ = ntohs(at.sin_port);
  thread_ = std::thread([this, processors] {
    tid_ = ::gettid();
    accept_all();
    std::thread feeder([this] { feed(); });
    processors.take_measured();
    serve();
    feeder.join();
    over_.wait(false);  // a thread that has ended has used nothing
  });
}

BareRelay::~BareRelay() {
  over_ = true;
  over_.notify_all();
  thread_.join();
  for (const int fd : fds_) ::close(fd);
  for (const int fd : steps_) ::close(fd);
  ::close(listening_);
}

void BareRelay::accept_all() {
  std::vector<int> accepted;
  for (size_t i = 0; i < options_.streams; ++i) {
    accepted.push_back(::accept(listening_, nullptr, nullptr));
    const int on = 1;
    ::setsockopt(accepted.back(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  fds_.resize(options_.streams, -1);
  for (const int fd : accepted) {
    std::array<char, 4096> request;
    const ssize_t got = ::recv(fd, request.data(), request.size(), 0);
    if (got <= 0) throw std::runtime_error("a client asked for nothing");
    fds_.at(stream_of_request({request.data(), static_cast<size_t>(got)})) = fd;
    send_all(fd, kHead);
  }
}

void BareRelay::serve() {
  const size_t groups = options_.phases.size();
  for (size_t steps = groups * times_.tokens(); steps > 0; --steps) {
    uint32_t group = 0;
    if (::read(steps_[0], &group, sizeof group) != sizeof group) {
      throw std::runtime_error("no step came");
    }
    for (size_t i = group; i < fds_.size(); i += groups) send_all(fds_[i], event_);
  }
  for (const int fd : fds_) send_all(fd, "0\r\n\r\n");
}

void BareRelay::feed() {
  struct Step {
    std::chrono::nanoseconds at;
    uint32_t group;
  };
  std::vector<Step> order;  // of the groups within a step's time
  for (uint32_t group = 0; group < options_.phases.size(); ++group) {
    order.push_back({options_.phases[group], group});
  }
  std::ranges::sort(order, {}, &Step::at);
  const auto begin = std::chrono::steady_clock::now();
  for (size_t index = 0; index < times_.tokens(); ++index) {
    for (const auto& [at, group] : order) {
      std::this_thread::sleep_until(begin + options_.step * static_cast<int64_t>(index) + at);
      if (::write(steps_[1], &group, sizeof group) != sizeof group) return;
      const int64_t now = wall_ns();
      for (size_t i = group; i < fds_.size(); i += order.size()) times_.note(i, index, now);
    }
  }
}

}  // namespace baton::router
