#include "router/http/exchange.h"

#include <fmt/format.h>

namespace baton::router {

HttpReply error_reply(const ApiError& error) {
  HttpReply reply{.status = error.status,
                  .body = error_body(error),
                  .reason = error.code.empty() ? "error" : error.code};
  if (error.retry_after_seconds > 0) {
    reply.headers += fmt::format("retry-after: {}\r\n", error.retry_after_seconds);
  }
  if (error.retry_after_ms > 0) {
    reply.headers += fmt::format("retry-after-ms: {}\r\n", error.retry_after_ms);
  }
  if (error.never_retry) reply.headers += "x-should-retry: false\r\n";
  if (error.status == HttpStatus::kUnauthorized) reply.headers += "www-authenticate: Bearer\r\n";
  return reply;
}

void Exchange::reply(HttpReply reply) {
  if (complete_) return;
  reply_ = std::move(reply);
  complete_ = true;
  signal();
}

void Exchange::begin_stream() { streaming_ = true; }

bool Exchange::flush() {
  if (gone_ != Gone::kNo) return false;
  if (pending_.size() > max_pending_bytes_) {
    gone_ = Gone::kTooSlow;
    signal();
    return false;
  }
  if (!pending_.empty()) signal();
  return true;
}

void Exchange::finish() {
  complete_ = true;
  signal();
}

void Exchange::take_pending(std::string& into) {
  into.clear();
  into.swap(pending_);
  for (Marked& mark : marks_) mark.taken |= std::exchange(mark.waiting, false);
}

void Exchange::note_written(TimePoint now) {
  for (Marked& mark : marks_) {
    if (std::exchange(mark.taken, false)) mark.written = now;
  }
}

void Exchange::set_gone(Gone why) {
  if (gone_ != Gone::kNo || complete_) return;
  gone_ = why;
  if (const auto callback = std::exchange(on_gone_, nullptr)) callback();
}

void Exchange::abort(const ApiError& why) {
  if (gone_ != Gone::kNo || complete_) return;
  if (const auto callback = std::exchange(on_abort_, nullptr)) {
    callback(why);
  } else if (!streaming_) {
    reply(error_reply(why));
  }
}

}  // namespace baton::router
