#include "tests/router/stream_clients.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <stdexcept>
#include <string_view>

#include "tests/router/http_client.h"

namespace baton::router {
namespace {

constexpr std::string_view kSeed = R"("seed":)";

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

int connect_to(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    throw std::runtime_error("a client cannot connect");
  }
  return fd;
}

struct Client {
  int fd = -1;
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
  Streams(size_t streams, const SendTimes& times, const std::function<double()>& server_cpu)
      : times_(times), server_cpu_(server_cpu), clients_(streams) {}
  ~Streams() {
    for (const Client& client : clients_) ::close(client.fd);
    ::close(epoll_);
  }

  void open(uint16_t port) {
    for (size_t i = 0; i < clients_.size(); ++i) {
      clients_[i].fd = connect_to(port);
      epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, clients_[i].fd, &event);
    }
    for (size_t i = 0; i < clients_.size(); ++i) {
      const std::string bytes = stream_request(i, times_.tokens());
      if (::send(clients_[i].fd, bytes.data(), bytes.size(), 0) < 0) {
        throw std::runtime_error("a client cannot send");
      }
      if (i % 50 == 49) read_what_comes(1);
    }
  }

  StreamsSeen drain() {
    while (open_ > 0 && read_what_comes(20'000)) {
    }
    for (const Client& client : clients_) seen_.complete += client.events >= times_.tokens();
    return std::move(seen_);
  }

 private:
  bool read_what_comes(int wait_ms) {
    std::array<epoll_event, 512> ready;
    const int n = ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), wait_ms);
    for (int i = 0; i < n; ++i) read(ready[static_cast<size_t>(i)].data.u64);
    return n > 0;
  }

  void read(size_t stream) {
    Client& client = clients_[stream];
    std::array<char, 16384> bytes;
    const ssize_t got = ::recv(client.fd, bytes.data(), bytes.size(), 0);
    if (got <= 0) return end(client);
    const std::string_view text(bytes.data(), static_cast<size_t>(got));
    const size_t before = client.events;
    client.events += count_events(client, text);
    if (within_) note(stream, before, text.size());
    started_ += before == 0 && client.events > 0;
    if (!was_within_ && started_ == clients_.size()) begin_window();
    if (client.events >= times_.tokens()) end_window();
    if (text.ends_with("\r\n0\r\n\r\n") || text.ends_with("data: [DONE]\n\n")) end(client);
  }

  void note(size_t stream, size_t before, size_t bytes) {
    seen_.reads += 1;
    seen_.bytes += bytes;
    for (size_t i = before; i < clients_[stream].events && i < times_.tokens(); ++i) {
      const double delay = times_.seconds_since(stream, i);
      ++seen_.events;
      if (delay >= 0) seen_.delays.push_back(static_cast<float>(delay));
    }
  }

  void begin_window() {
    within_ = was_within_ = true;
    seen_.cpu_seconds = -server_cpu_();
    seen_.wall_seconds = -1e-9 * static_cast<double>(now_ns());
  }

  void end_window() {
    if (!within_) return;
    within_ = false;
    seen_.cpu_seconds += server_cpu_();
    seen_.wall_seconds += 1e-9 * static_cast<double>(now_ns());
  }

  void end(Client& client) {
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, client.fd, nullptr);
    --open_;
    end_window();
  }

  const SendTimes& times_;
  const std::function<double()>& server_cpu_;
  const int epoll_ = ::epoll_create1(0);
  std::vector<Client> clients_;
  size_t open_ = clients_.size();
  size_t started_ = 0;
  bool within_ = false, was_within_ = false;
  StreamsSeen seen_;
};

}  // namespace

void SendTimes::note(size_t stream, size_t index) {
  if (index < tokens_) at_[stream * tokens_ + index].store(now_ns(), std::memory_order_relaxed);
}

double SendTimes::seconds_since(size_t stream, size_t index) const {
  const int64_t at = at_[stream * tokens_ + index].load(std::memory_order_relaxed);
  return at == 0 ? -1 : 1e-9 * static_cast<double>(now_ns() - at);
}

std::string stream_request(size_t stream, size_t tokens) {
  return post("/v1/completions", R"({"model":"toy","stream":true,"prompt":"Hi","max_tokens":)" +
                                     std::to_string(tokens) + "," + std::string(kSeed) +
                                     std::to_string(stream) + "}");
}

size_t stream_of_request(const std::string& bytes) {
  return std::stoul(bytes.substr(bytes.find(kSeed) + kSeed.size()));
}

StreamsSeen run_streams(uint16_t port, size_t streams, const SendTimes& times,
                        const std::function<double()>& server_cpu) {
  Streams all(streams, times, server_cpu);
  all.open(port);
  return all.drain();
}

}  // namespace baton::router
