#include "tests/router/stream_clients.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string_view>

#include "tests/router/event_times.h"
#include "tests/router/http_client.h"

namespace baton::router {
namespace {

constexpr std::string_view kSeed = R"("seed":)";

int connect_to(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    throw std::runtime_error("a client cannot connect");
  }
  const int on = 1;
  if (::setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0) {
    throw std::runtime_error("the kernel does not stamp packets");
  }
  return fd;
}

// As recv() without waiting; and when what it brought came in.
ssize_t receive(int fd, std::span<char> bytes, int64_t& arrived_ns) {
  iovec to{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(timespec))> control;
  msghdr message{};
  message.msg_iov = &to;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT);
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec at;
    std::memcpy(&at, CMSG_DATA(c), sizeof at);
    arrived_ns = int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
  }
  return got;
}

struct Client {
  int fd = -1;
  bool watched = false;
  bool open = true;
  size_t events = 0;
  bool half = false;  // what came last ended in one '\n' of an event's two
};

// An event ends with an empty line; no other of the stream's lines is empty, since those of HTTP's
// chunks end with "\r\n".
size_t count_events(Client& client, std::string_view bytes) {
  size_t events = 0;
  if (client.half && bytes.front() == '\n') ++events;
  for (size_t at = bytes.find("\n\n"); at != bytes.npos; at = bytes.find("\n\n", at + 2)) ++events;
  client.half = bytes.back() == '\n' && (bytes.size() < 2 || bytes[bytes.size() - 2] != '\n');
  return events;
}

class Streams {
 public:
  Streams(size_t streams, size_t tokens, size_t watch, const std::function<CpuUse()>& server_use)
      : tokens_(tokens), server_use_(server_use), clients_(streams) {
    std::vector<size_t> all(streams), watched;
    std::iota(all.begin(), all.end(), size_t{0});
    std::ranges::sample(all, std::back_inserter(watched), static_cast<ptrdiff_t>(watch),
                        std::mt19937_64(1));
    for (const size_t i : watched) clients_[i].watched = true;
    seen_.watched.reserve(watched.size() * tokens);
  }
  ~Streams() {
    for (const Client& client : clients_) ::close(client.fd);
    ::close(epoll_);
  }

  void open(uint16_t port) {
    for (size_t i = 0; i < clients_.size(); ++i) {
      clients_[i].fd = connect_to(port);
      if (!clients_[i].watched) continue;
      epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, clients_[i].fd, &event);
    }
    for (size_t i = 0; i < clients_.size(); ++i) {
      const std::string bytes = stream_request(i, tokens_);
      if (::send(clients_[i].fd, bytes.data(), bytes.size(), 0) < 0) {
        throw std::runtime_error("a client cannot send");
      }
      if (i % 50 == 49) read_watched(1);
    }
  }

  StreamsSeen drain() {
    auto last = std::chrono::steady_clock::now(), swept = last;
    while (open_ > 0) {
      bool came = read_watched(10);
      const auto now = std::chrono::steady_clock::now();
      if (now - swept >= kSweep) {
        came |= sweep();
        swept = now;
      }
      if (came) last = now;
      if (now - last > kPatience) break;
    }
    for (const Client& client : clients_) seen_.complete += client.events >= tokens_;
    return std::move(seen_);
  }

 private:
  static constexpr std::chrono::milliseconds kSweep{200};
  static constexpr std::chrono::seconds kPatience{20};

  bool read_watched(int wait_ms) {
    std::array<epoll_event, 512> ready;
    const int n = ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), wait_ms);
    for (int i = 0; i < n; ++i) read(ready[static_cast<size_t>(i)].data.u64);
    return n > 0;
  }

  bool sweep() {
    bool came = false;
    for (size_t i = 0; i < clients_.size(); ++i) {
      if (!clients_[i].watched && clients_[i].open) came |= read(i);
    }
    return came;
  }

  // Without waiting. True if there was something.
  bool read(size_t stream) {
    Client& client = clients_[stream];
    std::array<char, 16384> bytes;
    int64_t arrived_ns = 0;
    const ssize_t got = receive(client.fd, bytes, arrived_ns);
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) {
      end(client);
      return true;
    }
    const std::string_view text(bytes.data(), static_cast<size_t>(got));
    const size_t before = client.events;
    client.events += count_events(client, text);
    if (within_) note(stream, before, text.size(), arrived_ns);
    started_ += before == 0 && client.events > 0;
    if (!was_within_ && started_ == clients_.size()) begin_window();
    if (client.events >= tokens_) end_window();
    if (text.ends_with("\r\n0\r\n\r\n") || text.ends_with("data: [DONE]\n\n")) end(client);
    return true;
  }

  void note(size_t stream, size_t before, size_t bytes, int64_t arrived_ns) {
    const Client& client = clients_[stream];
    seen_.bytes += bytes;
    seen_.events += client.events - before;
    if (!client.watched) return;
    const int64_t now = wall_ns();
    seen_.reads += 1;
    for (size_t i = before; i < client.events && i < tokens_; ++i) {
      seen_.watched.push_back(
          {static_cast<uint32_t>(stream), static_cast<uint32_t>(i), arrived_ns, now});
    }
  }

  // What waits to be read belongs to the time before, and at the end to that within.
  void begin_window() {
    was_within_ = true;
    sweep();
    within_ = true;
    seen_.server = server_use_();
    seen_.clients = cpu_use_of(::gettid());
    seen_.seconds = -1e-9 * static_cast<double>(wall_ns());
  }

  void end_window() {
    if (!within_ || ending_) return;
    ending_ = true;
    seen_.server = server_use_() - seen_.server;
    seen_.clients = cpu_use_of(::gettid()) - seen_.clients;
    seen_.seconds += 1e-9 * static_cast<double>(wall_ns());
    sweep();
    within_ = false;
  }

  void end(Client& client) {
    if (client.watched) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, client.fd, nullptr);
    client.open = false;
    --open_;
    end_window();
  }

  const size_t tokens_;
  const std::function<CpuUse()>& server_use_;
  const int epoll_ = ::epoll_create1(0);
  std::vector<Client> clients_;
  size_t open_ = clients_.size();
  size_t started_ = 0;
  bool within_ = false, was_within_ = false, ending_ = false;
  StreamsSeen seen_;
};

}  // namespace

std::string stream_request(size_t stream, size_t tokens) {
  return post("/v1/completions", R"({"model":"toy","stream":true,"prompt":"Hi","max_tokens":)" +
                                     std::to_string(tokens) + "," + std::string(kSeed) +
                                     std::to_string(stream) + "}");
}

size_t stream_of_request(const std::string& bytes) {
  return std::stoul(bytes.substr(bytes.find(kSeed) + kSeed.size()));
}

StreamsSeen run_streams(uint16_t port, size_t streams, size_t tokens, size_t watch,
                        const std::function<CpuUse()>& server_use) {
  Streams all(streams, tokens, watch, server_use);
  all.open(port);
  return all.drain();
}

}  // namespace baton::router
