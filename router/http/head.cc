#include "router/http/head.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <ctime>
#include <iterator>

namespace baton::router {
namespace {

namespace http = boost::beast::http;

constexpr size_t kMaxRequestIdBytes = 64;

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

// What all lines of that name say, joined as HTTP has it. Nothing: there is none.
std::optional<std::string> lines_of(const RequestFields& fields, std::string_view name) {
  std::optional<std::string> joined;
  const auto [begin, end] = fields.equal_range({name.data(), name.size()});
  for (auto line = begin; line != end; ++line) {
    joined = joined ? *joined + ", " : std::string();
    *joined += view(line->value());
  }
  return joined;
}

// Ids go into logs, headers and messages to workers: only what is harmless in all of them.
bool is_safe_id(std::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

// Paths are shown in logs and errors.
std::string safe_path(std::string_view target) {
  constexpr size_t kMaxPathBytes = 256;
  std::string path(target.substr(0, std::min(target.find_first_of("?#"), kMaxPathBytes)));
  std::ranges::replace_if(
      path, [](char c) { return c <= ' ' || c > '~' || c == '"'; }, '?');
  return path;
}

void append_common(std::string& out, const HttpHead& head, bool keep) {
  fmt::format_to(std::back_inserter(out), "date: {:%a, %d %b %Y %H:%M:%S} GMT\r\n",
                 fmt::gmtime(std::time(nullptr)));
  fmt::format_to(std::back_inserter(out), "x-request-id: {}\r\n", head.request_id);
  if (!keep) out += "connection: close\r\n";
}

// How long a body is must be beyond doubt: whoever stands between us and the client may see it
// otherwise, and take a part of the body for the next request.
std::optional<HttpReply> check_body_fields(const RequestFields& fields) {
  if (const auto codings = fields.count(http::field::transfer_encoding); codings > 0) {
    if (fields.version() < 11) {
      return error_reply({.message = "HTTP/1.0 has no Transfer-Encoding"});
    }
    if (codings > 1 || !boost::beast::iequals(fields[http::field::transfer_encoding], "chunked")) {
      return error_reply({.status = HttpStatus::kNotImplemented,
                          .message = "The Transfer-Encoding can only be chunked"});
    }
  }
  const auto coding = fields[http::field::content_encoding];
  if (!coding.empty() && !boost::beast::iequals(coding, "identity")) {
    return error_reply({.status = HttpStatus::kUnsupportedMediaType,
                        .message = "The body must come as it is, without a Content-Encoding"});
  }
  return std::nullopt;
}

}  // namespace

std::string make_request_id(HttpShared& shared) {
  return fmt::format("{}-{}", shared.request_prefix, shared.next_request++);
}

HttpHead make_head(const RequestFields& fields, const std::string& peer, TimePoint received,
                   HttpShared& shared) {
  HttpHead head;
  head.method = safe_path(view(fields.method_string()));
  head.path = safe_path(view(fields.target()));
  head.authorization = view(fields[http::field::authorization]);
  head.host = view(fields[http::field::host]);
  head.origin = lines_of(fields, "origin").value_or("");
  const std::string_view id = view(fields["x-request-id"]);
  head.request_id = is_safe_id(id) ? std::string(id) : make_request_id(shared);
  head.wants_timings = fields["x-baton-timings"] == "1";
  head.if_none_match = lines_of(fields, "if-none-match").value_or("");
  head.slo.slo_class = lines_of(fields, "x-baton-slo-class");
  head.slo.ttft_ms = lines_of(fields, "x-baton-slo-ttft-ms");
  head.slo.tpot_ms = lines_of(fields, "x-baton-slo-tpot-ms");
  head.slo.ttft_alias = lines_of(fields, "x-slo-ttft-ms");
  head.slo.tpot_alias = lines_of(fields, "x-slo-tpot-ms");
  if (fields.count("traceparent") == 1) {
    head.trace = parse_trace_context(view(fields["traceparent"]),
                                     lines_of(fields, "tracestate").value_or(""));
  }
  head.peer = peer;
  head.received = received;
  return head;
}

std::optional<HttpReply> check_header(const RequestFields& fields) {
  if (auto reply = check_body_fields(fields)) return reply;
  const auto hosts = fields.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && fields.version() >= 11)) {
    return error_reply({.message = "The request must have one Host header"});
  }
  if (fields.version() < 10 || fields.version() > 11) {
    return error_reply({.status = HttpStatus::kVersionNotSupported,
                        .message = "The server speaks HTTP/1.0 and HTTP/1.1"});
  }
  const auto expect = fields[http::field::expect];
  if (!expect.empty() && !boost::beast::iequals(expect, "100-continue")) {
    return error_reply({.status = HttpStatus::kExpectationFailed,
                        .message = "The Expect header can only be 100-continue"});
  }
  return std::nullopt;
}

std::optional<ApiError> read_error(const boost::system::error_code& failed, bool timed_out,
                                   std::string_view part, const HttpOptions& options) {
  if (timed_out) {
    return ApiError{.status = HttpStatus::kRequestTimeout,
                    .message = fmt::format("The client took too long to send {}", part)};
  }
  if (failed == http::error::header_limit) {
    return ApiError{
        .status = HttpStatus::kHeaderFieldsTooLarge,
        .message = fmt::format("The header has more than {} bytes", options.max_header_bytes)};
  }
  if (failed == http::error::body_limit) {
    return ApiError{
        .status = HttpStatus::kPayloadTooLarge,
        .message = fmt::format("The body has more than {} bytes", options.max_body_bytes)};
  }
  if (failed == http::error::buffer_overflow) {
    return ApiError{.status = HttpStatus::kPayloadTooLarge,
                    .message = "The body's chunk headers or its trailer are too long"};
  }
  const bool malformed = failed.category() == make_error_code(http::error::bad_method).category();
  if (!malformed || failed == http::error::end_of_stream) return std::nullopt;
  return ApiError{.message = fmt::format("The request is not valid HTTP: {}", failed.message())};
}

std::string reply_head(const HttpHead& head, const HttpReply& reply, bool keep) {
  std::string out =
      fmt::format("HTTP/1.1 {} {}\r\n", static_cast<int>(reply.status), reason(reply.status));
  // What the client has is as it was: nothing is said of its type and length.
  if (reply.status != HttpStatus::kNotModified) {
    fmt::format_to(std::back_inserter(out), "content-type: {}\r\ncontent-length: {}\r\n",
                   reply.content_type, reply.body.size());
  }
  out += reply.headers;
  append_common(out, head, keep);
  out += "\r\n";
  return out;
}

std::string stream_head(const HttpHead& head, bool keep, bool chunked) {
  std::string out =
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
      "cache-control: no-cache\r\nx-accel-buffering: no\r\n";
  if (chunked) out += "transfer-encoding: chunked\r\n";
  append_common(out, head, keep);
  out += "\r\n";
  return out;
}

}  // namespace baton::router
