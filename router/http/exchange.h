#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/clock.h"
#include "router/http/request_facts.h"
#include "router/http/status.h"
#include "router/openai/error.h"
#include "router/placement/request_slo.h"
#include "router/traces/trace_context.h"

namespace baton::router {

// What is known of a request before its body is read.
struct HttpHead {
  std::string method;
  std::string path;            // without the query
  std::string authorization;   // as sent
  std::string host, origin;    // as sent; empty: not there
  std::string request_id;      // the client's x-request-id, made safe, or one of our own
  std::string peer;            // host:port
  bool wants_timings = false;  // x-baton-timings: 1
  std::string if_none_match;   // as sent
  SloHeaders slo;
  std::optional<TraceContext> trace;  // that the client's request is part of; none: of its own
  TimePoint received;
};

// A whole answer.
struct HttpReply {
  HttpStatus status = HttpStatus::kOk;
  std::string body;
  std::string_view content_type = "application/json";
  std::string headers = {};  // more header lines, each with its line end
  std::string reason = {};   // for the access log: an error's code
};

// The reply that an error makes, with the headers it asks for.
HttpReply error_reply(const ApiError& error);

// One request being answered: the handler fills it, the connection empties it into the socket. Both
// hold it; everything happens on the thread of the server's io_context.
class Exchange {
 public:
  enum class Gone { kNo, kDisconnected, kTooSlow };

  explicit Exchange(HttpHead head, size_t max_pending_bytes)
      : head_(std::move(head)), max_pending_bytes_(max_pending_bytes) {}

  // --- the handler's side ---
  const HttpHead& head() const { return head_; }
  // Answers at once. Nothing else may follow.
  void reply(HttpReply reply);
  // Begins a stream of server-sent events, which buffer() and flush() continue and finish() ends.
  void begin_stream();
  // Append complete events here, then flush().
  std::string& buffer() { return pending_; }
  // So many more bytes may wait for the client: what it asked for comes at once, not as it reads.
  void allow(size_t bytes) { max_pending_bytes_ += bytes; }
  // False if the client is gone, or reads so slowly that max_pending_bytes wait: it is cut off, and
  // the handler should stop. on_gone is not called then.
  bool flush();
  void finish();
  // For figures: once what is in buffer() now is in the socket, written(mark) says when. Without
  // anything there, it will not.
  enum Mark : size_t { kFirstToken, kSecondToken, kNumMarks };
  void mark(Mark mark) { marks_[mark].waiting = !pending_.empty(); }
  std::optional<TimePoint> written(Mark mark) const { return marks_[mark].written; }
  Gone gone() const { return gone_; }
  bool streaming() const { return streaming_; }
  // Called once if the client goes away before the answer is complete. Never from inside a call of
  // the handler's side.
  void on_gone(std::function<void()> callback) { on_gone_ = std::move(callback); }
  // Called once if the server cannot wait for the answer any longer: to end it with that error.
  // Without a callback the error is the answer.
  void on_abort(std::function<void(const ApiError&)> callback) { on_abort_ = std::move(callback); }
  // For the access log; to be filled before the answer is complete, or the client is given up.
  RequestFacts& facts() { return facts_; }

  // --- the connection's side ---
  // Called when there is something new to write, or the answer is complete.
  void on_ready(std::function<void()> callback) { on_ready_ = std::move(callback); }
  bool complete() const { return complete_; }
  const HttpReply& reply() const { return reply_; }
  // What waits to be sent; the buffer that is handed in is used next.
  void take_pending(std::string& into);
  // What was taken is in the socket.
  void note_written(TimePoint now);
  bool has_pending() const { return !pending_.empty(); }
  void set_gone(Gone why);
  void abort(const ApiError& why);
  const RequestFacts& facts() const { return facts_; }

 private:
  void signal() {
    if (on_ready_) on_ready_();
  }

  struct Marked {
    bool waiting = false, taken = false;
    std::optional<TimePoint> written;
  };

  HttpHead head_;
  size_t max_pending_bytes_;
  HttpReply reply_;
  std::array<Marked, kNumMarks> marks_;
  std::string pending_;  // of the stream
  RequestFacts facts_;
  bool streaming_ = false;
  bool complete_ = false;
  Gone gone_ = Gone::kNo;
  std::function<void()> on_gone_;
  std::function<void(const ApiError&)> on_abort_;
  std::function<void()> on_ready_;
};

}  // namespace baton::router
