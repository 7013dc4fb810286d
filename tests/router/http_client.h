#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace baton::router {

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;                            // chunks joined
  bool complete = false;                       // the body ended as announced
};

// A blocking client that sends exactly the bytes it is told.
class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer_bytes = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool send(std::string_view bytes);
  void shut_down_sending();
  void close();
  void reset();  // closes with an RST

  // Up to the end of one answer; nothing if the server closed before a head came.
  std::optional<HttpAnswer> read_answer(std::chrono::milliseconds within, bool has_body = true);
  // The next complete server-sent event's data, after a head was read.
  std::optional<std::string> read_event(std::chrono::milliseconds within);
  std::optional<HttpAnswer> read_head(std::chrono::milliseconds within);
  // True if the server closes within that time.
  bool wait_closed(std::chrono::milliseconds within);
  const std::string& buffered() const { return buffer_; }

 private:
  bool fill(std::chrono::steady_clock::time_point until);
  bool take_chunk(std::string& into, bool& last);

  int fd_ = -1;
  std::string buffer_;
  std::string events_;
};

// "POST path" with a JSON body.
std::string post(std::string_view path, std::string_view body, std::string_view headers = "");
std::string get(std::string_view path, std::string_view headers = "");
// A request of these lines; the empty one between is added.
std::string raw(std::string_view line, std::string_view headers = "Host: localhost\r\n",
                std::string_view body = "");
// Of the toy model: a completion with this body; one with a prompt and more fields.
std::string completion(std::string_view body);
std::string with_prompt(std::string_view more);
HttpAnswer request(uint16_t port, const std::string& bytes);

// The data of each event in a stream's body.
std::vector<std::string> events_of(std::string_view body);

}  // namespace baton::router
