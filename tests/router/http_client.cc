#include "tests/router/http_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <utility>

namespace baton::router {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

RawClient::RawClient(uint16_t port, int receive_buffer_bytes) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0) {
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("cannot connect");
  }
}

RawClient::~RawClient() { close(); }

void RawClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void RawClient::reset() {
  const linger hard{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close();
}

void RawClient::shut_down_sending() { ::shutdown(fd_, SHUT_WR); }

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawClient::fill(steady_clock::time_point until) {
  const auto left = std::chrono::duration_cast<milliseconds>(until - steady_clock::now()).count();
  pollfd poller{fd_, POLLIN, 0};
  if (left <= 0 || ::poll(&poller, 1, static_cast<int>(left)) <= 0) return false;
  char bytes[16384];
  const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
  if (got <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(got));
  return true;
}

bool RawClient::wait_closed(milliseconds within) {
  const auto until = steady_clock::now() + within;
  while (steady_clock::now() < until) {
    pollfd poller{fd_, POLLIN, 0};
    if (::poll(&poller, 1, 50) <= 0) continue;
    char bytes[16384];
    const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) return true;
  }
  return false;
}

std::optional<HttpAnswer> RawClient::read_head(milliseconds within) {
  const auto until = steady_clock::now() + within;
  size_t end;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!fill(until)) return std::nullopt;
  }
  const std::string head = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  HttpAnswer answer;
  answer.status = std::stoi(head.substr(head.find(' ') + 1, 3));
  for (size_t at = head.find("\r\n") + 2; at < head.size();) {
    const size_t line_end = head.find("\r\n", at), colon = head.find(':', at);
    std::string name = head.substr(at, colon - at);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    answer.headers[name] = head.substr(colon + 2, line_end - colon - 2);
    at = line_end + 2;
  }
  return answer;
}

// One chunk, if it is there completely.
bool RawClient::take_chunk(std::string& into, bool& last) {
  const size_t line = buffer_.find("\r\n");
  if (line == std::string::npos) return false;
  const size_t bytes = std::stoul(buffer_.substr(0, line), nullptr, 16);
  if (buffer_.size() < line + 2 + bytes + 2) return false;
  into += buffer_.substr(line + 2, bytes);
  buffer_.erase(0, line + 2 + bytes + 2);
  last = bytes == 0;
  return true;
}

std::optional<HttpAnswer> RawClient::read_answer(milliseconds within, bool has_body) {
  const auto until = steady_clock::now() + within;
  auto answer = read_head(within);
  if (!answer || answer->status == 100) return answer;
  answer->complete = true;
  if (!has_body) return answer;
  if (answer->headers.contains("content-length")) {
    const size_t bytes = std::stoul(answer->headers["content-length"]);
    while (buffer_.size() < bytes && fill(until)) {
    }
    answer->complete = buffer_.size() >= bytes;
    answer->body = buffer_.substr(0, bytes);
    buffer_.erase(0, bytes);
  } else if (answer->headers.contains("transfer-encoding")) {
    bool last = false;
    while (!last) {
      if (!take_chunk(answer->body, last) && !fill(until)) break;
    }
    answer->complete = last;
  } else {
    while (fill(until)) {
    }
    answer->body = std::exchange(buffer_, {});
  }
  return answer;
}

std::optional<std::string> RawClient::read_event(milliseconds within) {
  const auto until = steady_clock::now() + within;
  size_t end;
  while ((end = events_.find("\n\n")) == std::string::npos) {
    bool last = false;
    if (!take_chunk(events_, last) && !fill(until)) return std::nullopt;
    if (last) return std::nullopt;
  }
  std::string event = events_.substr(0, end);
  events_.erase(0, end + 2);
  return event.substr(event.find(' ') + 1);
}

std::string post(std::string_view path, std::string_view body, std::string_view headers) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}Content-Length: "
      "{}\r\n\r\n{}",
      path, headers, body.size(), body);
}

std::string get(std::string_view path, std::string_view headers) {
  return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", path, headers);
}

std::string completion(std::string_view body) { return post("/v1/completions", body); }
std::string with_prompt(std::string_view more) {
  return completion(R"({"model":"toy","prompt":"x",)" + std::string(more) + "}");
}
std::string raw(std::string_view line, std::string_view headers, std::string_view body) {
  return std::string(line) + "\r\n" + std::string(headers) + "\r\n" + std::string(body);
}

HttpAnswer request(uint16_t port, const std::string& bytes) {
  RawClient client(port);
  client.send(bytes);
  return client.read_answer(milliseconds(10'000)).value_or(HttpAnswer{});
}

std::vector<std::string> events_of(std::string_view body) {
  std::vector<std::string> events;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    if (end == std::string_view::npos) break;
    const std::string_view event = body.substr(at, end - at);
    events.emplace_back(event.substr(event.find(' ') + 1));
    at = end + 2;
  }
  return events;
}

}  // namespace baton::router
