#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace baton::router {

// When the token of a stream at an index was sent by its worker. Streams carry their number as the
// request's seed. Any thread.
class SendTimes {
 public:
  SendTimes(size_t streams, size_t tokens) : tokens_(tokens), at_(streams * tokens) {}
  void note(size_t stream, size_t index);
  // Seconds since then; negative: nothing was noted.
  double seconds_since(size_t stream, size_t index) const;
  size_t tokens() const { return tokens_; }

 private:
  size_t tokens_;
  std::vector<std::atomic<int64_t>> at_;  // [streams, tokens], ns of the steady clock; 0: never
};

// What was seen while every stream was under way: from the moment when the last one had its first
// token to when the first one had all of them.
struct StreamsSeen {
  size_t complete = 0;  // streams whose events all came; not only while all were under way
  size_t events = 0;
  size_t reads = 0;  // that brought something
  size_t bytes = 0;
  double cpu_seconds = 0;  // of the server's thread
  double wall_seconds = 0;
  std::vector<float> delays;  // seconds from SendTimes to the read that brought the event
};

// Opens `streams` connections to a port of this machine, asks on each for `times.tokens()` tokens
// and reads until all have ended, or nothing comes for 20 s; on the calling thread, by epoll.
// `server_cpu`: seconds that the server's thread has computed so far.
StreamsSeen run_streams(uint16_t port, size_t streams, const SendTimes& times,
                        const std::function<double()>& server_cpu);

// What a client sends, and the number that it says.
std::string stream_request(size_t stream, size_t tokens);
size_t stream_of_request(const std::string& bytes);

}  // namespace baton::router
