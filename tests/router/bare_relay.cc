#include "tests/router/bare_relay.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <stdexcept>
#include <string_view>

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

double cpu_seconds_of(std::thread& thread) {
  clockid_t clock;
  pthread_getcpuclockid(thread.native_handle(), &clock);
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

BareRelay::BareRelay(Options options, SendTimes& times)
    : options_(options), times_(times), event_(event_of(options.event_bytes)) {
  listening_ = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  auto* const raw = reinterpret_cast<sockaddr*>(&at);
  if (::bind(listening_, raw, size) != 0 || ::listen(listening_, 4096) != 0 ||
      ::getsockname(listening_, raw, &size) != 0) {
    throw std::runtime_error("cannot listen");
  }
  port_ = ntohs(at.sin_port);
  thread_ = std::thread([this] { serve(); });
}

BareRelay::~BareRelay() {
  over_ = true;
  over_.notify_all();
  thread_.join();
  for (const int fd : fds_) ::close(fd);
  ::close(listening_);
}

double BareRelay::cpu_seconds() { return cpu_seconds_of(thread_); }

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
  accept_all();
  const auto begin = std::chrono::steady_clock::now();
  const auto groups = static_cast<int64_t>(options_.groups);
  for (size_t index = 0; index < times_.tokens(); ++index) {
    for (int64_t group = 0; group < groups; ++group) {
      const auto turns = static_cast<int64_t>(index) * groups + group;
      std::this_thread::sleep_until(begin + options_.step * turns / groups);
      step(static_cast<size_t>(group), index);
    }
  }
  for (const int fd : fds_) send_all(fd, "0\r\n\r\n");
  over_.wait(false);  // a thread that has ended has no clock
}

void BareRelay::step(size_t group, size_t index) {
  for (size_t i = group; i < fds_.size(); i += options_.groups) times_.note(i, index);
  for (size_t i = group; i < fds_.size(); i += options_.groups) send_all(fds_[i], event_);
}

}  // namespace baton::router
